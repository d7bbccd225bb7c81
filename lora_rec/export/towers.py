"""Writes both towers into a bundle, and builds them again from one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from lora_rec.bundle import read_manifest
from lora_rec.errors import BundleError
from lora_rec.schema import TOWERS, Manifest, TowerManifest
from lora_rec.text.collate import tokenize
from lora_rec.text.templates import render_histories, render_items
from lora_rec.towers.adapters import load_adapter, save_adapter
from lora_rec.towers.backbone import PACKAGE_PREFIX, load_backbone
from lora_rec.towers.two_tower import Tower, TwoTower, encode

PROJECTIONS = "projections.safetensors"


def describe_tower(tower: Tower, *, backbone: str, trained_layers: int, max_tokens: int) -> TowerManifest:
    """Gives what the bundle says of a tower; a local folder is known by its name and fingerprint alone."""
    info = tower.backbone_info
    local = not backbone.startswith(PACKAGE_PREFIX) and backbone != info.source.base_model_id
    return TowerManifest(
        backbone=info.source.base_model_id if local else backbone,
        base_model_id=info.source.base_model_id,
        revision=info.source.revision,
        fingerprint=info.fingerprint,
        kind=info.kind,
        precision=info.precision,
        pooling=tower.pooling,
        trained_layers=trained_layers,
        hidden_size=info.hidden_size,
        max_tokens=max_tokens,
    )


def save_towers(model: TwoTower, folder: Path) -> None:
    """Writes `user_tower/`, `item_tower/` (each a PEFT adapter) and the projections."""
    tensors: dict[str, torch.Tensor] = {}
    for name in TOWERS:
        tower: Tower = getattr(model, name)
        source = tower.backbone_info.source
        save_adapter(tower.model, folder / name, base_model_id=source.base_model_id, revision=source.revision)
        state = tower.projection.state_dict()
        tensors |= {f"{name}.{key}": value.detach().cpu().contiguous() for key, value in state.items()}
    save_file(tensors, str(folder / PROJECTIONS))


@dataclass(frozen=True, eq=False)
class LoadedTowers:
    """Both towers of a bundle; they encode texts that nobody has seen yet."""

    manifest: Manifest
    model: TwoTower

    def encode_items(self, texts: Sequence[str], *, token_budget: int = 4096) -> NDArray[np.float32]:
        """Gives (n, D) unit vectors of item texts, written as `render_items` writes them."""
        return self._encode(self.model.item_tower, texts, self.manifest.item_tower.max_tokens, token_budget)

    def encode_users(self, texts: Sequence[str], *, token_budget: int = 4096) -> NDArray[np.float32]:
        """Gives (n, D) unit vectors of history texts, written as `render_histories` writes them."""
        return self._encode(self.model.user_tower, texts, self.manifest.user_tower.max_tokens, token_budget)

    def render_items(self, fields: dict[str, Sequence[str]]) -> list[str]:
        """Writes items down as the item tower was trained to read them."""
        return render_items(self.manifest.text.item_template, fields)

    def render_histories(
        self, histories: Sequence[Sequence[int]], fields: dict[str, Sequence[str]]
    ) -> list[str]:
        """Writes histories of rows of `fields`, oldest first, as the user tower was trained to read them."""
        text = self.manifest.text
        in_history = render_items(text.history_item_template, fields)
        rows = [np.asarray(history, dtype=np.int64) for history in histories]
        return render_histories(rows, in_history, length=text.history_length, newest_first=text.newest_first)

    @staticmethod
    def _encode(
        tower: Tower, texts: Sequence[str], max_tokens: int, token_budget: int
    ) -> NDArray[np.float32]:
        tokens = tokenize(tower.backbone_info.tokenizer, texts, max_tokens=max_tokens)
        return encode(tower, tokens, np.arange(len(tokens)), token_budget=token_budget)


def load_towers(
    bundle: str | Path,
    *,
    user_backbone: str | None,
    item_backbone: str | None,
    precision: str | None,
    device: str,
) -> LoadedTowers:
    """Builds both towers from a bundle; see `lora_rec.load_towers`."""
    folder = Path(bundle)
    manifest = read_manifest(folder)
    tensors = load_file(str(folder / PROJECTIONS))
    towers = []
    for name, override in zip(TOWERS, (user_backbone, item_backbone), strict=True):
        described: TowerManifest = getattr(manifest, name)
        backbone = load_backbone(
            override or described.backbone,
            kind=described.kind,
            revision=None if override else described.revision,
            precision=precision or described.precision,
            where=name,
        )
        if backbone.fingerprint != described.fingerprint:
            raise BundleError(
                f"{name}: the base at {override or described.backbone} is not the one"
                f" that the adapter was trained on ({described.base_model_id};"
                f" fingerprint {backbone.fingerprint[:12]} instead of {described.fingerprint[:12]});"
                f" give the right one as {name.removesuffix('_tower')}_backbone"
            )
        check_adapter(folder / name, where=name)
        model = load_adapter(backbone.model, folder / name)
        tower = Tower(
            backbone,
            model,
            pooling=described.pooling,
            trained_layers=described.trained_layers,
            width=manifest.width,
        )
        prefix = f"{name}."
        tower.projection.load_state_dict(
            {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        )
        towers.append(tower.requires_grad_(False))
    return LoadedTowers(manifest, TwoTower(*towers).to(device))


def check_adapter(folder: Path, *, where: str) -> None:
    """Refuses adapter weights that peft would load in silence.

    Raises:
        BundleError: a tensor is not finite, or the adapter is larger than any that we write.
    """
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if not 0 < int(config.get("r", 0)) <= 1024:
        raise BundleError(f"{where}: adapter_config.json asks for rank {config.get('r')}; ranks are 1..1024")
    for name, tensor in load_file(str(folder / "adapter_model.safetensors")).items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(
                f"{where}: tensor {name} holds values that are not finite; get the bundle again"
            )
