"""Writes both towers into a bundle, and builds them again from one."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from lora_rec.adapter_settings import FULL_PRECISION_ONLY, AdapterSettings
from lora_rec.errors import BundleError
from lora_rec.export.projections import read_projection
from lora_rec.schema import PROJECTIONS, TOWERS, Manifest, TowerManifest
from lora_rec.text.collate import tokenize
from lora_rec.towers.adapters import check_adapter, load_adapter, save_adapter
from lora_rec.towers.backbone import Backbone, load_backbone
from lora_rec.towers.layout import find_layout
from lora_rec.towers.source import PACKAGE_PREFIX
from lora_rec.towers.two_tower import Tower, TwoTower

logger = logging.getLogger(__name__)


def describe_tower(
    tower: Tower, *, backbone: str, trained_layers: int | None, max_tokens: int, learned: bool
) -> TowerManifest:
    """Gives what the bundle says of a tower.

    A local folder is known by its name and fingerprint alone. An adapter that is still as it was attached and
    so changes nothing, is called `none`.
    """
    info = tower.backbone_info
    settings = tower.adapter.settings
    if not learned and not tower.adapter.starts_elsewhere:
        settings = AdapterSettings("none", {})
    quantised = info.precision.name != info.precision.compute
    local = not backbone.startswith(PACKAGE_PREFIX) and backbone != info.source.base_model_id
    return TowerManifest(
        backbone=info.source.base_model_id if local else backbone,
        base_model_id=info.source.base_model_id,
        revision=info.source.revision,
        fingerprint=info.fingerprint,
        kind=info.kind,
        precision=info.precision.name,
        compute=info.precision.compute if quantised else None,
        adapter=settings.adapter,
        adapter_settings=dict(settings.values),
        pooling=tower.pooling,
        trained_layers=None if find_layout(info.model).shared else trained_layers,
        hidden_size=info.hidden_size,
        max_tokens=max_tokens,
        licence=info.source.licence,
    )


def save_towers(model: TwoTower, folder: Path, *, manifest: Manifest) -> None:
    """Writes `user_tower/`, `item_tower/` (each a PEFT adapter) and the projections."""
    tensors: dict[str, torch.Tensor] = {}
    for name in TOWERS:
        tower: Tower = getattr(model, name)
        source = tower.backbone_info.source
        if manifest.tower(name).adapter != "none":
            save_adapter(
                tower.adapter, folder / name, base_model_id=source.base_model_id, revision=source.revision
            )
        state = tower.projection.state_dict()
        tensors |= {f"{name}.{key}": value.detach().cpu().contiguous() for key, value in state.items()}
    save_file(tensors, str(folder / PROJECTIONS))


def load_tower(
    folder: Path,
    manifest: Manifest,
    name: str,
    *,
    backbone: str | None,
    precision: str | None,
    device: str | torch.device,
) -> Tower:
    """Builds one tower of a bundle that has been checked.

    Args:
        folder: the bundle.
        manifest: what `read_manifest` gave for it.
        name: `user_tower` or `item_tower`.
        backbone: where its base lies, if not where the bundle says.
        precision: instead of the one that it was trained in.
        device: of torch.

    Raises:
        BundleError: the base is another one, or the adapter is damaged or does nothing.
    """
    described = manifest.tower(name)
    if precision == "auto" and described.adapter in FULL_PRECISION_ONLY:
        precision = "fp32"  # as in training
    loaded = load_backbone(
        backbone or described.backbone,
        revision=None if backbone else described.revision,
        precision=precision or described.precision,
        compute=None if precision else described.compute,
        device=device,
        where=name,
    )
    check_precision(described, loaded.precision.name, where=name)
    return put_on(loaded, folder, manifest, name)


def check_precision(described: TowerManifest, precision: str, *, where: str) -> None:
    """Refuses an adapter on a backbone in a precision that it does not work in.

    Raises:
        BundleError: with the reason.
    """
    # How a LoRA was started does not matter any more.
    given = dict(described.adapter_settings) | {"lora_start": None}
    try:
        AdapterSettings.resolve(described.adapter, given, precision=precision)
    except ValueError as error:
        raise BundleError(
            f"{where}: its adapter {described.adapter!r} does not work in {precision} ({error})"
        ) from error


def warn_of_precision(tower: Tower, described: TowerManifest, name: str) -> None:
    """Says that an added adapter was trained on weights of another precision than it is used on."""
    held = tower.backbone_info.precision
    if (held.name, held.compute) != (described.precision, described.compute or described.precision):
        logger.warning(
            "%s: the added adapter was trained on weights in %s and is used on %s; its vectors will differ",
            name,
            described.precision,
            held.key,
        )


def put_on(backbone: Backbone, folder: Path, manifest: Manifest, name: str) -> Tower:
    """Puts a bundle's adapter and projection on a backbone; see `load_tower` for errors."""
    described = manifest.tower(name)
    check_base(backbone, described, where=name)
    settings = AdapterSettings(described.adapter, described.adapter_settings)
    projection = read_projection(folder, name, width=manifest.width, hidden_size=backbone.output_size)
    first = find_layout(backbone.model).first_trained(described.trained_layers, where=name)
    before = _probe(backbone)
    if settings.adapter != "none":
        check_adapter(folder / name, settings.adapter, where=name)
    attached = load_adapter(backbone.model, folder / name, settings, first_layer=first, where=name)
    tower = Tower(backbone, attached, pooling=described.pooling, width=manifest.width)
    tower.projection.load_state_dict(projection)
    tower.to(next(backbone.model.parameters()).device).requires_grad_(False)
    if settings.adapter != "none" and torch.equal(before, _probe(backbone, tower)):
        raise BundleError(
            f"{name}: the adapter changes nothing: with it the base gives its own vectors, so its tensors are"
            " zero or named for other modules; get the bundle again or train longer"
        )
    return tower


@torch.no_grad()
def _probe(backbone: Backbone, tower: Tower | None = None) -> torch.Tensor:
    """Gives the states of a short text, with the adapter or without, to see whether that does anything."""
    tokens = tokenize(backbone.tokenizer, ["The quick brown fox 1 2 3; and another"], max_tokens=32)
    batch = tokens.batch(np.arange(1)).to(next(backbone.model.parameters()).device)
    if tower is not None:
        return tower.encode_tokens(batch)
    assert batch.input_ids is not None  # token batches have ids
    return backbone.model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, **backbone.options
    ).last_hidden_state


def check_base(backbone: Backbone, described: TowerManifest, *, where: str) -> None:
    """Refuses a base that the adapter was not trained on.

    Raises:
        BundleError: the fingerprints differ.
    """
    if backbone.fingerprint != described.fingerprint:
        raise BundleError(
            f"{where}: the base at {backbone.source.base_model_id} is not the one"
            f" that the adapter was trained on ({described.base_model_id};"
            f" fingerprint {backbone.fingerprint[:12]} instead of {described.fingerprint[:12]});"
            f" give the right one as {where.removesuffix('_tower')}_backbone"
        )
