"""Adapters that others have saved: refused where peft would load in silence, and taken as a tower's start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from lora_rec.adapter_settings import AdapterSettings
from lora_rec.errors import BundleError, TowerError
from lora_rec.schema import OWN_FORMAT
from lora_rec.towers.adapters.attach import Attached, keep_compute_type
from lora_rec.towers.adapters.counter import lora_layers
from lora_rec.towers.adapters.storage import open_saved
from lora_rec.towers.layout import find_layout

MAX_RANK = 4096
EXECUTED = ("megatron_config",)
"""Settings of peft for which it imports what a file names."""
_CHANGED_BASES = ("pissa", "olora", "corda", "loftq")
"""Starts of a LoRA that take something out of its base. Saved as they are, they fit that other base alone."""


def check_adapter(folder: Path, adapter: str, *, where: str) -> None:
    """Refuses adapter weights that peft would load in silence.

    Raises:
        BundleError: a tensor is not finite, or the adapter is larger than any that we write.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BundleError(f"{where}: the bundle holds no weights for its adapter; get it again")
    if adapter not in OWN_FORMAT:
        config = _read_config(folder, where=where)
        named = [key for key in EXECUTED if config.get(key)]
        if named:
            raise BundleError(
                f"{where}: adapter_config.json names modules to import ({named[0]}), which no adapter of ours"
                " does; it was not loaded"
            )
        if start := _start_that_changes_the_base(config):
            raise BundleError(
                f"{where}: adapter_config.json says {start!r}, a start that changes the base, and no adapter"
                " of ours is saved so; it was not loaded"
            )
        sizes = {key: config.get(key) for key in ("r", "num_virtual_tokens")} | (
            config.get("rank_pattern") or {}
        )
        for key, size in sizes.items():
            if not 0 <= int(size or 0) <= MAX_RANK:
                raise BundleError(
                    f"{where}: adapter_config.json asks for {key}={size}; the limit is {MAX_RANK}"
                )
    for file in files:
        for name, tensor in load_file(str(file)).items():
            if not bool(torch.isfinite(tensor).all()):
                raise BundleError(
                    f"{where}: tensor {name} holds values that are not finite; get the bundle again"
                )


def read_lora_settings(
    folder: Path, *, base_model_id: str, lora_plus_ratio: float | None, precision: str, where: str
) -> AdapterSettings:
    """Gives the settings of a saved LoRA that a tower is to start from.

    Args:
        folder: of plain peft.
        base_model_id: of the tower's backbone; another one is refused, a local path cannot be compared.
        lora_plus_ratio: of the training to come.
        precision: of the tower.
        where: named in errors.

    Raises:
        TowerError: it is no LoRA, or has parts that a tower does not have, or another base.
    """
    config = _read_config(folder, where=where)
    if config.get("peft_type") != "LORA":
        raise TowerError(
            f"{where}.start_from: {folder} holds a {config.get('peft_type')} adapter; give a LoRA"
        )
    parts = [
        name
        for name in ("modules_to_save", "trainable_token_indices", "layer_replication")
        if config.get(name)
    ]
    if parts or config.get("bias", "none") != "none" or config.get("lora_bias"):
        raise TowerError(
            f"{where}.start_from: {folder} also has {parts[0] if parts else 'biases'}, which no tower has;"
            " give a LoRA of linear modules alone"
        )
    if start := _start_that_changes_the_base(config):
        raise TowerError(
            f"{where}.start_from: {folder} was started by {start!r} and fits a base without what that took"
            " out; save it again with peft's path_initial_model_for_weight_conversion, as a plain LoRA"
        )
    base = str(config.get("base_model_name_or_path") or "")
    # A folder was named by whoever trained it; of a tower's own only the last part is kept.
    is_path = Path(base).is_absolute() or not base or Path(base).name == base_model_id
    if not is_path and base != base_model_id:
        raise TowerError(
            f"{where}.start_from: {folder} was trained on {base}, the tower's backbone is {base_model_id};"
            f" set {where}.backbone={base}"
        )
    targets = config.get("target_modules") or ()
    try:
        return AdapterSettings.resolve(
            "lora",
            {
                "lora_rank": config.get("r"),
                "lora_alpha": config.get("lora_alpha"),
                "lora_dropout": config.get("lora_dropout"),
                "rslora": config.get("use_rslora"),
                "dora": config.get("use_dora"),
                "target_modules": (targets,) if isinstance(targets, str) else tuple(sorted(targets)),
                "lora_plus_ratio": lora_plus_ratio,
            },
            precision=precision,
        )
    except (TypeError, ValueError) as error:
        raise TowerError(
            f"{where}.start_from: {folder} has settings that no tower in {precision} has ({error})"
        ) from error


def attach_saved(
    model: nn.Module, folder: Path, settings: AdapterSettings, *, trained_layers: int | None, where: str
) -> Attached:
    """Attaches a saved LoRA, to be trained further.

    Args:
        model: a frozen backbone.
        folder: of plain peft.
        settings: what `read_lora_settings` gave for it.
        trained_layers: number of last layers that may carry adapters; None for all.
        where: named in errors.

    Raises:
        BundleError: its weights are damaged or do not fit the backbone.
        TowerError: it sits on layers that are to stay frozen.
    """
    first = find_layout(model).first_trained(trained_layers, where=where)
    check_adapter(folder, "lora", where=where)
    layers = find_layout(model).layers
    under = open_saved(model, folder, is_trainable=True, where=where)
    for path in lora_layers(under):
        index = path.removeprefix(f"{layers}.").split(".")[0] if layers else ""
        if first > 0 and not (index.isdigit() and int(index) >= first):
            raise TowerError(
                f"{where}.start_from: it acts on {path}, and trained_layers={trained_layers} keeps what lies"
                f" below layer {first} frozen; set {where}.trained_layers=null"
            )
    keep_compute_type(under)
    return Attached(settings, under, first, is_continued=True)


def _start_that_changes_the_base(config: dict[str, Any]) -> str | None:
    start = config.get("init_lora_weights")
    return start if isinstance(start, str) and start.lower().startswith(_CHANGED_BASES) else None


def _read_config(folder: Path, *, where: str) -> dict[str, Any]:
    file = folder / "adapter_config.json"
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{where}: {file} does not read ({error}); get the adapter again") from error
    return tree if isinstance(tree, dict) else {}
