"""Attaches, saves and loads adapters; the only place in `towers` that knows peft."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_rec.errors import TowerError, did_you_mean
from lora_rec.towers.split import first_trained_layer, layout_of


def find_targets(
    model: nn.Module, *, trained_layers: int, target_modules: Sequence[str] | None, where: str
) -> list[str]:
    """Names the linear modules of the last layers that get an adapter.

    Raises:
        TowerError: a name matches no linear module of those layers.
    """
    layout = layout_of(model, where=where)
    first = first_trained_layer(model, trained_layers=trained_layers, where=where)
    linear = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    inside = [
        n for n in linear if n.startswith(f"{layout.layers}.") and _layer_index(n, layout.layers) >= first
    ]
    found: list[str] = []
    for target in target_modules or layout.query_value:
        matches = [n for n in inside if n.endswith(f".{target}")]
        if not matches:
            names = sorted({n.rsplit(".", 1)[1] for n in inside})
            hint = did_you_mean(target, names) or "choose from those that are there"
            raise TowerError(
                f"{where}.target_modules: {target!r} matches no module of {model.config.model_type};"  # type: ignore[union-attr]
                f" {hint} (linear modules: {', '.join(names)})"
            )
        found.extend(matches)
    return sorted(found)


def _layer_index(name: str, layers: str) -> int:
    return int(name[len(layers) + 1 :].split(".", 1)[0])


def attach_lora(
    model: nn.Module,
    *,
    lora_rank: int,
    lora_alpha: float,
    lora_dropout: float,
    trained_layers: int,
    target_modules: Sequence[str] | None,
    where: str,
) -> PeftModel:
    """Puts a LoRA on the last layers; at its start the model's outputs are unchanged.

    Raises:
        TowerError: see `find_targets` and `first_trained_layer`.
    """
    targets = find_targets(model, trained_layers=trained_layers, target_modules=target_modules, where=where)
    # After 4- or 8-bit loading a Conv1D is a linear, so this follows the loaded module, not the model's name.
    transposed = {isinstance(model.get_submodule(name), Conv1D) for name in targets}
    if len(transposed) > 1:
        raise TowerError(f"{where}.target_modules: mix Conv1D and Linear modules; name modules of one kind")
    config = LoraConfig(
        r=lora_rank,
        lora_alpha=lora_alpha,  # type: ignore[arg-type]
        lora_dropout=lora_dropout,
        target_modules=targets,
        fan_in_fan_out=transposed.pop(),
        task_type="FEATURE_EXTRACTION",
    )
    return get_peft_model(model, config)  # type: ignore[arg-type,return-value]


def save_adapter(model: nn.Module, folder: Path, *, base_model_id: str, revision: str | None) -> None:
    """Writes a folder that plain peft loads; it names the base by its Hub id, never by a local path."""
    model.save_pretrained(str(folder), save_embedding_layers=False)  # type: ignore[operator]
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_model_id
    config["revision"] = revision
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(
        missing_ok=True
    )  # peft's card repeats the local path; the bundle has its own


def load_adapter(model: nn.Module, folder: Path) -> PeftModel:
    """Puts a saved adapter on its base, frozen."""
    return PeftModel.from_pretrained(model, str(folder))  # type: ignore[arg-type]


def adapter_dropouts(model: nn.Module) -> list[nn.Module]:
    """Gives the dropout modules that belong to adapters; those of the frozen model stay off."""
    return [m for name, m in model.named_modules() if ".lora_dropout." in name and isinstance(m, nn.Dropout)]


def adapter_parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """Gives the trainable tensors of the adapters by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
