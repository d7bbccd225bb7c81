"""Merges a tower's adapter into its backbone, in full precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel

from lora_rec.adapter_settings import AdapterSettings
from lora_rec.errors import TowerError
from lora_rec.export.towers import put_on
from lora_rec.schema import Manifest
from lora_rec.towers.adapters import Attached
from lora_rec.towers.backbone import Backbone, load_backbone
from lora_rec.towers.precision import QUANTISED, Precision, dequantise
from lora_rec.towers.two_tower import Tower

UNMERGEABLE = {
    "prefix": "keys and values before the text are in no weight of the model",
    "bottleneck": "its two layers with a nonlinearity between them fit into no weight of the model",
}


def check_mergeable(adapter: str, *, where: str) -> None:
    """Refuses an adapter that no plain model can hold.

    Raises:
        TowerError: the adapter is of such a kind.
    """
    if adapter in UNMERGEABLE:
        raise TowerError(
            f"{where}: adapter {adapter!r} cannot be merged, because {UNMERGEABLE[adapter]};"
            " serve it as it is, or train lora"
        )


def load_in_full(
    folder: Path, manifest: Manifest, name: str, *, backbone: str | None, original_base: bool = False
) -> Tower:
    """Gives a tower in fp32 whose adapter is not merged yet.

    A backbone in 8 or 4 bit is loaded as it was trained and dequantised, so that it stands for the very
    weights that the adapter was trained with; merging into the codes themselves would round the adapter away.

    Args:
        folder: a bundle that has been checked.
        manifest: of that bundle.
        name: `user_tower` or `item_tower`.
        backbone: where its base lies, if not where the bundle says.
        original_base: take the weights as they were before 8 or 4 bit.

    Raises:
        BundleError: the base is another one, or the adapter is damaged or does nothing.
    """
    described = manifest.tower(name)
    loaded = load_as_trained(
        backbone or described.backbone,
        revision=None if backbone else described.revision,
        precision="fp32" if original_base else described.precision,
        compute=None if original_base else described.compute,
        where=name,
    )
    return put_on(loaded, folder, manifest, name)


def load_as_trained(
    name: str, *, revision: str | None, precision: str, compute: str | None, where: str
) -> Backbone:
    """Gives a backbone in fp32 with the very weights that it was trained with, in whatever precision."""
    loaded = load_backbone(
        name, revision=revision, precision=precision, compute=compute, device="cpu", where=where
    )
    if loaded.precision.name in QUANTISED:
        dequantise(loaded.model)
    else:
        loaded.model.float()
    return replace(loaded, precision=Precision("fp32", "fp32"))


def merge(tower: Tower) -> Tower:
    """Gives the tower as a plain model with the adapter in its weights; the given one is used up."""
    model: Any = tower.model
    merged = model.merge_and_unload(safe_merge=True) if isinstance(model, PeftModel) else model
    plain = Attached(AdapterSettings("none", {}), merged, tower.first_trained_layer)
    result = Tower(tower.backbone_info, plain, pooling=tower.pooling, width=tower.width)
    result.projection.load_state_dict(tower.projection.state_dict())
    return result.requires_grad_(False)
