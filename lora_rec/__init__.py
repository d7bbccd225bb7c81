"""Adapters on frozen language models for recommenders, served by a light ranking head.

Nothing heavy is imported here: `load` needs numpy alone, `load_towers` brings torch, transformers and peft.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lora_rec.errors import (
    BundleError,
    DataError,
    HubError,
    LoraRecError,
    RecipeError,
    TowerError,
    TrainingError,
)

if TYPE_CHECKING:
    from lora_rec.export.loaded import LoadedTowers
    from lora_rec.rank.ranker import Recommender

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "DataError",
    "HubError",
    "LoraRecError",
    "RecipeError",
    "TowerError",
    "TrainingError",
    "load",
    "load_towers",
]


def load(bundle: str | Path, *, revision: str | None = None, token: str | None = None) -> Recommender:
    """Opens the light half of a bundle: lists in milliseconds, without torch.

    Args:
        bundle: its folder, which always wins, or OWNER/NAME on the Hub.
        revision: branch, tag or commit on the Hub.
        token: for the Hub, instead of the one that `hf auth login` or HF_TOKEN left.

    Raises:
        BundleError: there is no bundle, or one of its files was changed.
        HubError: the Hub has no such repository or revision, refuses, or cannot be reached.
    """
    from lora_rec.hub import find_bundle
    from lora_rec.rank.ranker import Recommender

    return Recommender.load(find_bundle(bundle, revision=revision, token=token))


def load_towers(
    bundle: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    user_backbone: str | None = None,
    item_backbone: str | None = None,
    precision: str | None = None,
    device: str = "cpu",
) -> LoadedTowers:
    """Opens the heavy half of a bundle: its towers, which encode texts that nobody has seen yet.

    Args:
        bundle: its folder, which always wins, or OWNER/NAME on the Hub.
        revision: branch, tag or commit on the Hub.
        token: for the Hub, instead of the one that `hf auth login` or HF_TOKEN left.
        user_backbone: where the user tower's base lies, if the bundle cannot know it (a local folder).
        item_backbone: the same for the item tower.
        precision: `fp32`, `bf16`, `8bit`, `4bit` or `auto` instead of what each tower was trained in.
        device: of torch.

    Raises:
        BundleError: there is no bundle, a file was changed, or a base is not the one that was trained on.
        HubError: the Hub has no such repository or revision, refuses, or cannot be reached.
        TowerError: a base is not there.
    """
    from lora_rec.hub import find_bundle

    try:
        from lora_rec.export.loaded import load_towers as load_heavy
    except ModuleNotFoundError as error:
        from lora_rec.errors import missing_package

        raise missing_package(error) from error
    folder = find_bundle(bundle, revision=revision, token=token)
    return load_heavy(
        folder, user_backbone=user_backbone, item_backbone=item_backbone, precision=precision, device=device
    )
