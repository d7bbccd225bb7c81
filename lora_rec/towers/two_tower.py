"""A tower (backbone, adapter, pooling, projection) and the pair of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lora_rec.text.collate import BatchSource, TokenBatch, TokenizedTexts, plan_micro_batches, tokenize
from lora_rec.towers.adapters import Attached, prefix_inputs
from lora_rec.towers.backbone import Backbone
from lora_rec.towers.layout import check_length, count_positions
from lora_rec.towers.pooling import pool
from lora_rec.towers.precision import DTYPES, n_weights
from lora_rec.towers.split import Halves

NUMBERS = "task_numbers."
NUMBER_RATE = 10.0
"""Objectives' numbers start from nothing and have farther to go than an adapter."""


@dataclass(frozen=True)
class ParameterCount:
    """How much of a tower is learned: the adapter by gradient, the projection in closed form."""

    trained: int
    total: int

    @property
    def share(self) -> float:
        """Trained parameters over all."""
        return self.trained / self.total


class Projection(nn.Module):
    """A linear map of standardised states, solved in closed form, never by gradient: `train.projections`."""

    mean: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, hidden_size: int, width: int) -> None:
        """Starts as a map of the first axes."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(hidden_size))
        self.register_buffer("scale", torch.ones(hidden_size))
        self.register_buffer("weight", torch.eye(width, hidden_size))
        self.register_buffer("bias", torch.zeros(width))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Gives (B, D) from (B, H)."""
        return nn.functional.linear((states - self.mean) * self.scale, self.weight, self.bias)


class Tower(nn.Module):
    """Texts in, unit vectors of the shared width out.

    The frozen layers below the adapters and the layers with them share their weights with the whole model. A
    batch of token ids runs both halves; a batch of hidden states, read from the prefix cache, runs the upper
    one alone.
    """

    def __init__(
        self, backbone: Backbone, adapter: Attached, *, pooling: str | None, width: int | None
    ) -> None:
        """Puts the parts together.

        Args:
            backbone: as loaded, with its tokenizer.
            adapter: attached to that backbone.
            pooling: see `pooling.pool`; `mean` for encoders and `last` for decoders when left out.
            width: length of the embeddings; that of the states, unprojected, when left out.
        """
        super().__init__()
        self.adapter = adapter
        self.model = adapter.model
        self.hidden_size = backbone.output_size
        self.width = width or self.hidden_size
        self.projection = Projection(self.hidden_size, self.width)
        self.backbone_info = backbone
        self.pooling = pooling or ("mean" if backbone.kind == "encoder" else "last")
        self.first_trained_layer = adapter.first_layer
        self._n_positions = count_positions(backbone.model)
        self.is_sharded = False
        """Whether processes share its frozen layers, see `train.sharding`: all then run it equally often."""
        self.n_frozen: int | None = None
        """Counted before they were parted, after which 4 bit cannot be told from bytes."""
        self.split()
        self.eval()

    def split(self) -> None:
        """Parts the backbone below the adapters; again after an adapter was put on modules that had none."""
        self._halves = Halves(self.backbone_info.model, at=self.first_trained_layer)

    def train(self, mode: bool = True) -> Tower:
        """Switches the dropout of the adapters alone: the frozen part drops nothing, so it can be cached."""
        super().train(False)
        self.adapter.switch_dropouts(mode)
        self.training = mode
        return self

    @property
    def device(self) -> torch.device:
        """Where the tower lies."""
        return self.projection.weight.device

    def check_length(self, n_tokens: int, *, where: str) -> None:
        """Refuses a text that the backbone has no positions for; see `layout.check_length`."""
        check_length(n_tokens, self._n_positions, n_virtual=self.adapter.settings.n_virtual, where=where)

    def tokenize(self, texts: Sequence[str], *, max_tokens: int) -> TokenizedTexts:
        """Tokenises texts to be read: cut where those of training were, and where the positions end.

        Args:
            texts: any strings.
            max_tokens: of the recipe; more than the positions where no text of training was so long.
        """
        if self._n_positions is not None:
            max_tokens = min(max_tokens, self._n_positions - self.adapter.settings.n_virtual)
        return tokenize(self.backbone_info.tokenizer, texts, max_tokens=max_tokens)

    def encode_prefix(self, batch: TokenBatch) -> torch.Tensor:
        """Gives what the frozen layers make of token ids, (B, L, H); there are some."""
        assert batch.input_ids is not None  # a batch has ids or states, and this is asked for ids
        self.check_length(batch.attention_mask.shape[1], where="texts")
        with torch.no_grad():
            return self._halves.run_lower(batch.input_ids, batch.attention_mask, **self.backbone_info.options)

    def encode_tokens(self, batch: TokenBatch) -> torch.Tensor:
        """Gives the last hidden states, (B, L, H)."""
        options = self.backbone_info.options | prefix_inputs(
            self.model, self.backbone_info.model, batch.attention_mask, first_layer=self.first_trained_layer
        )
        if self.first_trained_layer == 0:
            assert batch.input_ids is not None  # nothing is frozen, so nothing was cached
            self.check_length(batch.attention_mask.shape[1], where="texts")
            with _moved(self.backbone_info.embeddings, batch.shift):
                return self._halves.run_whole(batch.input_ids, **options)
        states = batch.hidden_states if batch.hidden_states is not None else self.encode_prefix(batch)
        states = states.to(DTYPES[self.backbone_info.precision.compute])
        return self._halves.run_upper(_move(states, batch.shift), **options)

    @property
    def entry_width(self) -> int:
        """Width of the states that enter the trained layers: the embeddings', where all are trained."""
        if self.first_trained_layer > 0:
            return self.backbone_info.hidden_size
        return int(self.backbone_info.embeddings.weight.shape[1])  # type: ignore[union-attr,index]

    def encode_states(self, batch: TokenBatch) -> torch.Tensor:
        """Gives the pooled states before the projection, (B, H) fp32."""
        return pool(self.encode_tokens(batch), batch.attention_mask, pooling=self.pooling)

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """Gives unit vectors, (B, D) fp32."""
        return self.project(self.encode_states(batch))

    def project(self, states: torch.Tensor) -> torch.Tensor:
        """Gives unit vectors (B, D) from pooled states (B, H)."""
        return nn.functional.normalize(self.projection(states), dim=-1)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Gives the tensors of the adapter by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def count_parameters(self) -> ParameterCount:
        """Counts trained and all parameters; a weight in 4 bit counts as one, though two share a byte."""
        trained = sum(p.numel() for p in self.trained_parameters().values())
        fitted = self.projection.weight.numel() + self.projection.bias.numel()
        frozen = self.count_frozen() if self.n_frozen is None else self.n_frozen
        return ParameterCount(trained + fitted, trained + frozen + fitted)

    def count_frozen(self) -> int:
        """Counts the parameters that are not trained, of layers that are whole."""
        return sum(n_weights(parameter) for parameter in self.parameters() if not parameter.requires_grad)


class TwoTower(nn.Module):
    """The user tower and the item tower side by side."""

    def __init__(self, user_tower: Tower, item_tower: Tower) -> None:
        """Keeps both towers."""
        super().__init__()
        self.user_tower = user_tower
        self.item_tower = item_tower
        self.task_numbers = nn.ParameterDict()
        """What objectives learn beside the adapters; see `train.objectives`."""

    @property
    def towers(self) -> dict[str, Tower]:
        """The towers by name."""
        return {"user_tower": self.user_tower, "item_tower": self.item_tower}

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Gives all that is learned by gradient, by name: both adapters, and the objectives' numbers."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """Gives the tensors of both adapters by name."""
        return {n: p for n, p in self.trained_parameters().items() if not n.startswith(NUMBERS)}

    def learning_rate_factor(self, name: str) -> float:
        """Gives the factor of the learning rate for one trained tensor (LoRA+, objectives' numbers)."""
        if name.startswith(NUMBERS):
            return NUMBER_RATE
        tower: Tower = getattr(self, name.split(".", 1)[0])
        return tower.adapter.learning_rate_factor(name)

    def learned_state(self) -> dict[str, torch.Tensor]:
        """Gives all that differs between two states of training: what is learned, and projections."""
        state: dict[str, torch.Tensor] = dict(self.trained_parameters())
        for name in ("user_tower", "item_tower"):
            projection = getattr(self, name).projection
            state |= {
                f"{name}.projection.{key}": value
                for key, value in projection.state_dict(keep_vars=True).items()
            }
        return state


def _move(states: torch.Tensor, shift: torch.Tensor | None) -> torch.Tensor:
    """Gives states (B, L, H), each moved by a share of its own length."""
    if shift is None:
        return states
    lengths = states.detach().float().norm(dim=-1, keepdim=True)
    return states + (shift * lengths).to(states.dtype)


@contextmanager
def _moved(embeddings: nn.Module, shift: torch.Tensor | None) -> Iterator[None]:
    """Moves what a model's embeddings give, for as long as the context lasts."""
    if shift is None:
        yield
        return
    hook = embeddings.register_forward_hook(lambda *event: _move(event[2], shift))
    try:
        yield
    finally:
        hook.remove()


def batch_or_first(source: BatchSource, indices: NDArray[np.int64]) -> TokenBatch:
    """Gives the chosen texts, or the first of all where none is chosen and the tower is run for others."""
    return source.batch(indices if len(indices) else np.zeros(1, dtype=np.int64))


@torch.no_grad()
def encode_states(
    tower: Tower,
    source: BatchSource,
    indices: NDArray[np.int64],
    *,
    token_budget: int,
    complete: Callable[[list[NDArray[np.int64]]], list[NDArray[np.int64]]] = list,
) -> NDArray[np.float32]:
    """Gives the pooled states before the projection of chosen texts, without gradients.

    Args:
        tower: in any mode; adapters' dropout is off while this runs.
        source: token ids or cached prefixes.
        indices: which texts.
        token_budget: padded tokens in one micro-batch.
        complete: adds micro-batches without texts to the plan, see `train.sharding`.

    Returns:
        (n, H) fp32, in the order of `indices`.
    """
    was_training = tower.training
    tower.eval()
    result = np.zeros((len(indices), tower.hidden_size), dtype=np.float32)
    for rows in complete(plan_micro_batches(source.lengths[indices], token_budget=token_budget)):
        states = tower.encode_states(batch_or_first(source, indices[rows]).to(tower.device))
        result[rows] = states[: len(rows)].cpu().numpy()
    tower.train(was_training)
    return result


@torch.no_grad()
def project(tower: Tower, states: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gives unit vectors (n, D) from pooled states (n, H)."""
    return tower.project(torch.from_numpy(states).to(tower.device)).cpu().numpy()


def encode(
    tower: Tower, source: BatchSource, indices: NDArray[np.int64], *, token_budget: int
) -> NDArray[np.float32]:
    """Gives unit vectors (n, D) of chosen texts; see `encode_states`."""
    return project(tower, encode_states(tower, source, indices, token_budget=token_budget))
