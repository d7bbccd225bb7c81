"""From last states to scores of tokens: by the checkpoint's own head, or by the input embeddings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from lora_rec.towers.split import with_submodule


class _Given(nn.Module):
    """Stands for the backbone in a language model: gives states that were set before."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.states: torch.Tensor | None = None
        self._backbone = (backbone,)  # in a tuple, so that it is no part of the head

    @property
    def decoder(self) -> _Given:
        """OPT's language model calls this part of its backbone."""
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # DeBERTa's head asks its backbone for the embeddings
            return getattr(self.__dict__["_backbone"][0], name)

    def forward(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=self.states)  # type: ignore[arg-type]


class OwnHead(nn.Module):
    """The head that came with the checkpoint, frozen; run by the model's own forward."""

    def __init__(self, model: nn.Module) -> None:
        """Takes the head off a language model; its backbone is used elsewhere."""
        super().__init__()
        prefix: Any = model.base_model_prefix
        self._given = _Given(model.get_submodule(prefix))
        self.model = with_submodule(model, prefix, self._given)
        self._options = {"use_cache": False} if hasattr(model.config, "use_cache") else {}

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Gives (n, V) fp32, the logits of every token, from (n, H)."""
        self._given.states = states[None]
        # The model wants ids; the states are already there.
        ids = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        try:
            return self.model(input_ids=ids, **self._options).logits[0].float()
        finally:
            self._given.states = None


class TiedHead(nn.Module):
    """A learned map of the states, then their products with the input embeddings, and a learned bias.

    The embeddings stay as they are. The map starts as the identity where embeddings are as wide as states.
    """

    def __init__(self, backbone: nn.Module, *, hidden_size: int) -> None:
        """Takes the embeddings of a backbone."""
        super().__init__()
        embeddings: Any = backbone.get_input_embeddings()  # type: ignore[operator]
        self._embeddings = (embeddings,)  # in a tuple, so that it is no part of the head
        size, width = embeddings.weight.shape
        self.map = nn.Linear(hidden_size, width, bias=False)
        if width == hidden_size:
            nn.init.eye_(self.map.weight)
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Gives (n, V) fp32, the logits of every token, from (n, H)."""
        weight = self._embeddings[0].weight.float()
        return nn.functional.linear(self.map(states.float()), weight, self.bias)


def take_head(model: Any, missing_keys: Collection[str], *, hidden_size: int) -> nn.Module:
    """Gives a language model's head.

    Args:
        model: as transformers loaded it, with its backbone.
        missing_keys: tensors that the checkpoint did not have.
        hidden_size: width of the last states.

    Raises:
        ValueError: the checkpoint lacks tensors of the backbone itself.
    """
    prefix = f"{model.base_model_prefix}."
    lost = [key for key in missing_keys if key.startswith(prefix) and ".pooler." not in key]
    if lost:
        raise ValueError(f"{len(lost)} tensors are missing, e.g. {sorted(lost)[0]}")
    if all(key.startswith(prefix) for key in missing_keys):
        return OwnHead(model)
    return TiedHead(model.base_model, hidden_size=hidden_size)
