"""The sequence part of `rank.sequence` as a torch module; that module's docstring says what it computes."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from lora_rec.data.lists import Lists
from lora_rec.train.losses import catalogue_softmax_loss, propensity_weights, sampled_softmax_loss

_Arrays = dict[str, NDArray[np.float32]]
FULL_SOFTMAX_ITEMS = 10_000
"""A larger catalogue is sampled from: with 12,101 items an epoch took 16 s instead of 26."""
N_SAMPLED = 2048
WHITENED_WIDTH = 128
HIDDEN_FACTOR = 2
START_LENGTH = 0.5  # of the residuals, beside text projections of about that length


class _Block(nn.Module):
    """Causal attention and two dense layers, each on the normalised states and added to them."""

    def __init__(self, width: int, *, n_heads: int, length: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.hidden = nn.Linear(width, HIDDEN_FACTOR * width)
        self.output = nn.Linear(HIDDEN_FACTOR * width, width)
        self.dropout = nn.Dropout(dropout)
        # As in ALiBi (Press et al. 2022, arXiv 2108.12409), but learned from there on.
        slopes = 2.0 ** (-8 * torch.arange(1, n_heads + 1) / n_heads)
        self.distance_bias = nn.Parameter(-slopes[:, None] * torch.arange(length + 1))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        n, length, width = states.shape
        split = self.attention(functional.layer_norm(states, (width,))).view(n, length, 3, self.n_heads, -1)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        places = torch.arange(length)
        back = places[:, None] - places
        bias = self.distance_bias[:, back.clamp(min=0)].masked_fill(back < 0, -torch.inf)
        seen = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias[None])
        states = states + self.dropout(self.merge(seen.transpose(1, 2).reshape(n, length, width)))
        hidden = self.dropout(torch.relu(self.hidden(functional.layer_norm(states, (width,)))))
        return states + self.dropout(self.output(hidden))


class SequenceHead(nn.Module):
    """Item inputs, blocks, and scores by cosine over a temperature."""

    def __init__(
        self,
        item_vectors: NDArray[np.float32],
        item_counts: NDArray[np.int64],
        *,
        user_width: int,
        width: int,
        n_blocks: int,
        n_heads: int,
        history_length: int,
        dropout: float,
        id_dropout: float,
        min_id_count: int,
        temperature: float,
        inverse_propensity: float = 0.0,
    ) -> None:
        """Prepares the inputs.

        Args:
            item_vectors: (N, T), of the items' texts; whitened here.
            item_counts: (N,), training interactions.
            user_width: D, length of the user text vectors.
            width: W, a multiple of n_heads.
            n_blocks: attention followed by dense layers.
            n_heads: of the attention.
            history_length: L.
            dropout: of the inputs and of what each block adds.
            id_dropout: chance that an item goes without its residual in a step.
            min_id_count: items with fewer interactions have no residual.
            temperature: of the softmax; folded into the exported arrays.
            inverse_propensity: power of `losses.propensity_weights`.
        """
        super().__init__()
        self.text: torch.Tensor
        self.has_id: torch.Tensor
        self.popularity: torch.Tensor
        self.log_probabilities: torch.Tensor
        self.target_weights: torch.Tensor
        whitened = whiten(item_vectors, width=WHITENED_WIDTH)
        self.register_buffer("text", torch.from_numpy(whitened))
        self.register_buffer("has_id", torch.from_numpy(item_counts >= min_id_count).float()[:, None])
        popularity = np.log1p(item_counts).astype(np.float32)
        self.register_buffer("popularity", torch.from_numpy(popularity - popularity.mean()))
        # Popular items are drawn more often, but not in proportion: rare ones are most of the catalogue.
        chances = torch.from_numpy(np.sqrt(item_counts + 1.0))
        self.register_buffer("log_probabilities", (chances / chances.sum()).log().float())
        weights = propensity_weights(torch.from_numpy(item_counts), power=inverse_propensity)
        self.register_buffer("target_weights", weights)
        self.id_dropout, self.temperature, self.history_length = id_dropout, temperature, history_length
        self.user_width = user_width
        self.text_projection = nn.Linear(whitened.shape[1], width, bias=False)
        self.residuals = nn.Parameter(torch.randn(len(whitened), width) * 0.02)
        self.popularity_weight = nn.Parameter(torch.tensor(0.3))
        self.input_scale = nn.Parameter(torch.ones(1))
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.user_projection = nn.Linear(user_width + 1, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            _Block(width, n_heads=n_heads, length=history_length, dropout=dropout) for _ in range(n_blocks)
        )
        self.norm = nn.LayerNorm(width)

    def item_inputs(self) -> torch.Tensor:
        """Gives (N, W), unit length."""
        residuals = self.residuals * self.has_id
        if self.training and self.id_dropout:
            residuals = residuals * (torch.rand(len(residuals), 1) >= self.id_dropout)
        return functional.normalize(self.text_projection(self.text) + residuals, dim=1)

    def states(
        self,
        items: torch.Tensor,
        table: torch.Tensor,
        *,
        counts: torch.Tensor | None = None,
        user_text: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Gives user vectors (B, L + 1, W) after the start and after each item of (B, L), oldest first.

        Args:
            items: (N, W), of `item_inputs`.
            table: (B, L), item ids; what stands right of a history's end changes nothing before it.
            counts: (B,), length of each history; needed with user_text.
            user_text: (B, D + 1), joins the newest input; a row of zeros is none.
        """
        seen = functional.embedding(table, items) * self.input_scale
        inputs = torch.cat([self.start.expand(len(table), 1, -1), seen], dim=1)
        if user_text is not None and counts is not None:
            newest = functional.one_hot(counts, inputs.shape[1]).to(inputs)[:, :, None]
            inputs = inputs + newest * self.user_projection(user_text)[:, None]
        states = self.dropout(inputs)
        for block in self.blocks:
            states = block(states)
        return functional.normalize(self.norm(states), dim=2) / self.temperature

    def loss(self, items: torch.Tensor, users: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Gives the mean cross-entropy of targets (P,) for user vectors (P, W)."""
        bias = self.popularity_weight * self.popularity
        if len(items) <= FULL_SOFTMAX_ITEMS:
            return catalogue_softmax_loss(users, items, bias, targets, item_weights=self.target_weights)
        drawn = torch.multinomial(self.log_probabilities.exp(), N_SAMPLED, replacement=True)
        return sampled_softmax_loss(
            users,
            items,
            bias,
            targets,
            item_weights=self.target_weights,
            sampled=drawn,
            log_probabilities=self.log_probabilities,
        )

    @torch.no_grad()
    def start_residuals(self, histories: Lists) -> None:
        """Sets the residuals by who had which items: MovieLens-100K then needed half the epochs."""
        factors = co_occurrence_factors(histories, n_items=len(self.residuals), width=self.residuals.shape[1])
        self.residuals.copy_(START_LENGTH * factors)

    @torch.no_grad()
    def to_arrays(self) -> _Arrays:
        """Gives the arrays of `rank.sequence.SequencePart`."""
        training = self.training
        self.eval()

        def stacked(name: str) -> torch.Tensor:
            return torch.stack([block.get_parameter(name) for block in self.blocks])

        tensors = {
            "items": self.item_inputs(),
            "item_bias": self.popularity_weight * self.popularity,
            "input_scale": self.input_scale,
            "start": self.start,
            "text_weight": self.user_projection.weight,
            "distance_bias": stacked("distance_bias"),
            "state_scale": self.norm.weight,
            "state_bias": self.norm.bias,
            "sharpness": torch.tensor([1 / self.temperature]),
        }
        for name in ("attention", "merge", "hidden", "output"):
            tensors |= {f"{name}_{kind}": stacked(f"{name}.{kind}") for kind in ("weight", "bias")}
        self.train(training)
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


def whiten(vectors: NDArray[np.float32], *, width: int) -> NDArray[np.float32]:
    """Gives the leading principal components (N, width or less), all of one variance, rows of length about 1.

    Vectors of texts lie in a narrow cone, and a projection learns from few directions of it only.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred)
    kept = np.flatnonzero(values > 1e-6 * max(values[-1], 1e-12))[::-1][:width]
    components = centred @ (axes[:, kept] / np.sqrt(values[kept]))
    return (components * math.sqrt(len(vectors) / max(1, len(kept)))).astype(np.float32)


def co_occurrence_factors(histories: Lists, *, n_items: int, width: int) -> torch.Tensor:
    """Gives leading singular vectors of the user-item matrix as unit rows (N, W), zero for an unseen item.

    Users and items are divided by the root of their counts; the first vector, popularity, is left out.
    Torch's seed decides the random start of the decomposition.
    """
    users = np.repeat(np.arange(len(histories)), histories.counts)
    of_items = np.bincount(histories.values, minlength=n_items)
    weights = (histories.counts[users] + 1.0) ** -0.5 * (of_items[histories.values] + 5.0) ** -0.5
    matrix = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([histories.values, users])),
        torch.from_numpy(weights.astype(np.float32)),
        (n_items, len(histories)),
        check_invariants=True,
    ).coalesce()
    rank = min(width + 1, *matrix.shape)
    left, values, _ = torch.svd_lowrank(matrix, q=min(rank + 16, *matrix.shape), niter=4)
    factors = torch.zeros(n_items, width)
    factors[:, : rank - 1] = left[:, 1:rank] * values[1:rank].sqrt()
    return functional.normalize(factors, dim=1)
