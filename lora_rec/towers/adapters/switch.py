"""Several LoRAs by name on one backbone: add, use, mix, remove."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.tuners.lora import LoraModel
from torch import nn

from lora_rec.errors import BundleError, TowerError, did_you_mean
from lora_rec.towers.adapters.attach import keep_compute_type
from lora_rec.towers.adapters.storage import check_tensors, to_plain_lora


def require_lora(model: nn.Module, *, where: str) -> Any:
    """Gives the model if further adapters can be put beside its own.

    Raises:
        TowerError: its adapter is none that others can stand beside.
    """
    if isinstance(model, PeftModel) and isinstance(model.base_model, LoraModel):
        return model
    raise TowerError(
        f"{where}: only towers with a LoRA (lora or adalora) can hold several adapters;"
        " load the other bundle with load_towers instead"
    )


def check_name(model: Any, name: str, *, where: str) -> None:
    """Refuses a name that is not there.

    Raises:
        TowerError: naming those that are.
    """
    names = list(model.peft_config)
    if name not in names:
        hint = did_you_mean(name, names) or f"there are {', '.join(names)}"
        raise TowerError(f"{where}: no adapter {name!r}; {hint}")


def check_addable(model: nn.Module, folder: Path | None, name: str, *, where: str) -> None:
    """Refuses an adapter that cannot stand beside those that are there.

    Raises:
        TowerError: the name is taken or unfit, or the model or the folder has another kind than LoRA.
    """
    if name in require_lora(model, where=where).peft_config:
        raise TowerError(f"{where}: there is an adapter {name!r}; remove it first or take another name")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name == "__base__" or hasattr(nn.ModuleDict(), name):
        raise TowerError(
            f"{where}: {name!r} cannot name an adapter; use letters, digits, - and _, e.g. my_{name}"
        )
    kind = "LORA"
    if folder is not None:
        file = folder / "adapter_config.json"  # adapters that peft does not have lie in files of their own
        kind = json.loads(file.read_text(encoding="utf-8"))["peft_type"] if file.is_file() else "non-PEFT"
    if kind != "LORA":
        raise TowerError(
            f"{where}: {folder} holds a {kind} adapter, which cannot stand beside a LoRA;"
            " load that bundle with load_towers instead"
        )


def add_adapter(model: Any, folder: Path, name: str, *, where: str) -> None:
    """Loads a saved LoRA beside those that are there; the active one stays active.

    Raises:
        BundleError: its tensors are not those that its settings describe; nothing is left of it.
    """
    active = model.active_adapter
    try:
        model.load_adapter(str(folder), adapter_name=name, is_trainable=False)
        check_tensors(model, folder, name, where=where)
        keep_compute_type(model)
    except (BundleError, RuntimeError, ValueError) as error:
        if name in model.peft_config:
            model.delete_adapter(name)
        if isinstance(error, BundleError):
            raise
        raise BundleError(
            f"{where}: the saved adapter does not load ({error}); get the bundle again"
        ) from error
    finally:
        use_adapter(model, active)


def use_adapter(model: Any, name: str) -> None:
    """Makes one adapter the active one, frozen."""
    model.set_adapter(name)
    model.requires_grad_(False)


Mixed = tuple[LoraConfig, dict[str, torch.Tensor]]


def mix_adapters(model: Any, weights: Mapping[str, float], name: str, *, where: str) -> Mixed:
    """Gives a LoRA whose update is the weighted sum of others' updates, exactly; see `add_mixed`.

    Raises:
        TowerError: a name is unknown or taken, or one of them is no sum of factors.
    """
    check_addable(model, None, name, where=where)
    for part in weights:
        check_name(model, part, where=where)
    return to_plain_lora(model, weights)


def add_mixed(model: Any, mixed: Mixed, name: str) -> None:
    """Puts what `mix_adapters` gave beside the others; the active one stays active."""
    config, tensors = mixed
    active = model.active_adapter
    config.inference_mode = True
    model.add_adapter(name, config)
    set_peft_model_state_dict(model, tensors, adapter_name=name)
    use_adapter(model, active)


def remove_adapter(model: Any, name: str) -> None:
    """Takes an adapter that is not active off; the backbone keeps no trace of it."""
    model.delete_adapter(name)
