"""Cuts a backbone into the frozen layers below the adapters and the layers that carry them.

Both halves share the weights of the whole: they are shallow copies in which the list of layers is shorter.
Each runs the model's own forward, so masks and position embeddings are made by the model itself.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_rec.errors import TowerError


class _Passthrough(nn.Module):
    """Stands for an embedding block whose result is already in `inputs_embeds`."""

    def forward(self, *args: Any, inputs_embeds: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return inputs_embeds


class _Zero(nn.Module):
    """Stands for a position embedding that the prefix has already added."""

    def forward(self, position_ids: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1, device=position_ids.device)


@dataclass(frozen=True)
class Layout:
    """Where a model type keeps its layers."""

    layers: str
    """Path of the list of layers."""
    replaced_in_suffix: tuple[tuple[str, type[nn.Module]], ...] = ()
    """What must not run again on the prefix's result."""
    replaced_in_prefix: tuple[str, ...] = ()
    """What runs after the last layer alone."""
    query_value: tuple[str, ...] = ("q_proj", "v_proj")
    """Modules that carry an adapter unless told otherwise."""


_BERT = Layout("encoder.layer", (("embeddings", _Passthrough),), (), ("query", "value"))
_LLAMA = Layout("layers", (), ("norm",))
_GPT2 = Layout("h", (("wpe", _Zero),), ("ln_f",), ("c_attn",))
LAYOUTS = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "gpt2": _GPT2,
}


def layout_of(model: nn.Module, *, where: str = "backbone") -> Layout:
    """Gives the layout of a model.

    Raises:
        TowerError: the type is not known; the message lists those that are.
    """
    model_type = model.config.model_type  # type: ignore[union-attr]
    if model_type not in LAYOUTS:
        raise TowerError(
            f"{where}: type {model_type!r} is not supported yet; use one of {', '.join(LAYOUTS)}"
        )
    return LAYOUTS[str(model_type)]


def first_trained_layer(model: nn.Module, *, trained_layers: int, where: str = "backbone") -> int:
    """Gives the index of the first layer that carries adapters.

    Raises:
        TowerError: more layers are asked for than there are.
    """
    n_layers = len(model.get_submodule(layout_of(model, where=where).layers))  # type: ignore[arg-type]
    if trained_layers > n_layers:
        raise TowerError(
            f"{where}.trained_layers: {trained_layers}, but the backbone has {n_layers}; give 1..{n_layers}"
        )
    return n_layers - trained_layers


def split(model: nn.Module, *, at: int) -> tuple[nn.Module, nn.Module]:
    """Gives the model below and from layer `at`; call the second with the first's states as `inputs_embeds`.

    Args:
        model: the backbone itself, not its peft wrapper; adapters that sit in its layers stay in.
        at: number of layers in the first half.
    """
    layout = layout_of(model)
    layers = model.get_submodule(layout.layers)
    prefix = _with_submodules(model, {layout.layers: layers[:at]})  # type: ignore[index]
    suffix = _with_submodules(model, {layout.layers: layers[at:]})  # type: ignore[index]
    prefix = _with_submodules(prefix, {path: nn.Identity() for path in layout.replaced_in_prefix})
    suffix = _with_submodules(suffix, {path: kind() for path, kind in layout.replaced_in_suffix})
    return prefix, suffix


def _with_submodules(module: nn.Module, replaced: dict[str, nn.Module]) -> nn.Module:
    """Copies a module with some submodules exchanged; every parameter stays shared with the original."""
    result = _shallow_copy(module)
    for path, new in replaced.items():
        owner = result
        *parents, name = path.split(".")
        for parent in parents:
            owner._modules[parent] = _shallow_copy(owner.get_submodule(parent))
            owner = owner.get_submodule(parent)
        owner._modules[name] = new
    return result


def _shallow_copy(module: nn.Module) -> nn.Module:
    result = copy.copy(module)
    result.__dict__["_modules"] = dict(module._modules)
    return result
