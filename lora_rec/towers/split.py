"""Cuts a backbone into the frozen layers below the adapters and the layers that carry them.

Both halves are shallow copies that share every weight with the whole, and run the model's own forward, so
masks, positions and whatever a type adds around its layers are made by the model itself. Only the list of
layers is exchanged: in the lower half everything from the cut up hands its input on, and what arrives at the
cut is kept; in the upper half everything below the cut is skipped, and the layer at the cut is given the kept
states. The list keeps its length, because some types choose a layer's mask by its index.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from lora_rec.towers.layout import find_layout


class _Skip(nn.Module):
    """Stands for a layer that does not run; `keep` holds what came in."""

    def __init__(self, replaced: nn.Module, *, in_tuple: bool) -> None:
        super().__init__()
        self.in_tuple = in_tuple
        self.keep: torch.Tensor | None = None
        if hasattr(replaced, "attention_type"):
            self.attention_type = replaced.attention_type  # some models choose mask and positions by it

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.keep = hidden_states
        return (hidden_states, None) if self.in_tuple else hidden_states


class _Enter(nn.Module):
    """Runs a layer on states that were set before, whatever comes in."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.states: torch.Tensor | None = None
        if hasattr(layer, "attention_type"):
            self.attention_type = layer.attention_type

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.layer(self.states, *args, **kwargs)


class Halves:
    """The two halves of a backbone; see the module's docstring."""

    def __init__(self, model: nn.Module, *, at: int) -> None:
        """Cuts.

        Args:
            model: the backbone itself, not its peft wrapper; adapters that sit in its layers stay in.
            at: number of layers in the lower half; with 0 there are no halves, only `run_whole`.
        """
        self.at = at
        self._model = model
        if at == 0:
            return
        path = find_layout(model).layers
        assert path is not None  # first_trained has refused this
        layers: Any = model.get_submodule(path)
        in_tuple = _returns_tuple(model, layers[0])
        lower = [*layers[:at], *(_Skip(layer, in_tuple=in_tuple) for layer in layers[at:])]
        upper = [*(_Skip(layer, in_tuple=in_tuple) for layer in layers[:at]), *layers[at:]]
        self._gate: Any = lower[at]
        self._entry = _Enter(layers[at])
        upper[at] = self._entry
        self._lower = with_submodule(model, path, nn.ModuleList(lower))
        self._upper = with_submodule(model, path, nn.ModuleList(upper))

    def run_lower(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any
    ) -> torch.Tensor:
        """Gives what arrives at the cut, (B, L, H)."""
        self._lower(input_ids=input_ids, attention_mask=attention_mask, **options)
        states, self._gate.keep = self._gate.keep, None
        return states

    def run_upper(self, states: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> torch.Tensor:
        """Gives the last hidden states, (B, L, H), from what arrived at the cut."""
        self._entry.states = states
        # The model wants ids; what it makes of these is thrown away at the cut.
        ids = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
        try:
            return self._upper(input_ids=ids, attention_mask=attention_mask, **options).last_hidden_state
        finally:
            self._entry.states = None

    def run_whole(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any
    ) -> torch.Tensor:
        """Gives the last hidden states, (B, L, H), of the backbone as it is."""
        return self._model(input_ids=input_ids, attention_mask=attention_mask, **options).last_hidden_state


@torch.no_grad()
def _returns_tuple(model: nn.Module, layer: nn.Module) -> bool:
    """Says, from one token, whether the layers of a model give a tuple or a tensor."""
    kinds: list[bool] = []
    hook = layer.register_forward_hook(lambda *event: kinds.append(isinstance(event[2], tuple)))
    try:
        device = next(model.parameters()).device
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device))
    finally:
        hook.remove()
    return kinds[0]


def with_submodule(module: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """Copies a module with one submodule exchanged; every parameter stays shared with the original."""
    result = _shallow_copy(module)
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
