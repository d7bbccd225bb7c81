"""Trains the sequence part of the ranking head on exported vectors; seconds, not hours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from lora_rec.data.dataset import Lists
from lora_rec.errors import TrainingError

_Arrays = dict[str, NDArray[np.float32]]


class SequenceHead(nn.Module):
    """The sequence part of `rank.head` as a module; its docstring says what it computes."""

    def __init__(
        self,
        item_vectors: NDArray[np.float32],
        item_counts: NDArray[np.int64],
        *,
        user_width: int,
        width: int,
        n_heads: int,
        history_length: int,
        dropout: float,
        id_dropout: float,
        min_id_count: int,
        temperature: float,
    ) -> None:
        """Prepares the inputs.

        Args:
            item_vectors: (N, T), of the items' texts.
            item_counts: (N,), training interactions.
            user_width: D, length of the user text vectors.
            width: W.
            n_heads: Q, number of learned queries.
            history_length: L.
            dropout: of the hidden layer.
            id_dropout: chance that an item goes without its residual in a step.
            min_id_count: items with fewer interactions have no residual.
            temperature: of the softmax; folded into the exported vectors.
        """
        super().__init__()
        self.text: torch.Tensor
        self.has_id: torch.Tensor
        self.popularity: torch.Tensor
        n_items, text_width = item_vectors.shape
        self.register_buffer("text", torch.from_numpy(np.asarray(item_vectors, dtype=np.float32)))
        self.register_buffer("has_id", torch.from_numpy(item_counts >= min_id_count).float()[:, None])
        popularity = np.log1p(item_counts).astype(np.float32)
        self.register_buffer("popularity", torch.from_numpy(popularity - popularity.mean()))
        self.id_dropout, self.temperature, self.history_length = id_dropout, temperature, history_length
        self.text_projection = nn.Linear(text_width, width, bias=False)
        self.residuals = nn.Parameter(torch.randn(n_items, width) * 0.01)
        self.popularity_weight = nn.Parameter(torch.tensor(0.3))
        self.queries = nn.Parameter(torch.randn(n_heads, width) * 0.1)
        # One query starts on the newest items, the last on the whole history.
        slopes = torch.logspace(0, -2, n_heads) if n_heads > 1 else torch.tensor([0.1])
        self.place_bias = nn.Parameter(-torch.arange(history_length)[:, None] * slopes[None, :])
        self.user_width = user_width
        self.hidden = nn.Linear(n_heads * width + user_width + 1, 2 * width)
        self.output = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def item_inputs(self) -> torch.Tensor:
        """Gives (N, W)."""
        residuals = self.residuals * self.has_id
        if self.training and self.id_dropout:
            residuals = residuals * (torch.rand(len(residuals), 1) >= self.id_dropout)
        return nn.functional.normalize(self.text_projection(self.text), dim=-1) + residuals

    def user_vectors(
        self, items: torch.Tensor, histories: torch.Tensor, mask: torch.Tensor, user_text: torch.Tensor
    ) -> torch.Tensor:
        """Gives (B, W) from items (N, W), histories (B, L) newest first with mask, and text (B, D + 1)."""
        inputs = items[histories] * mask[:, :, None]
        logits = (
            inputs @ self.queries.T / self.queries.shape[1] ** 0.5 + self.place_bias[: histories.shape[1]]
        )
        weights = logits.masked_fill(~mask[:, :, None], -1e9).softmax(dim=1)
        pooled = torch.einsum("ulq,ulw->uqw", weights, inputs).flatten(1)
        hidden = torch.relu(self.hidden(torch.cat([pooled, user_text], dim=1)))
        return self.output(self.dropout(hidden))

    def scores(self, items: torch.Tensor, user_vectors: torch.Tensor) -> torch.Tensor:
        """Gives the logits over the catalogue, (B, N)."""
        return user_vectors @ items.T / self.temperature + self.popularity_weight * self.popularity

    @torch.no_grad()
    def to_arrays(self) -> _Arrays:
        """Gives the arrays of `rank.head.SequencePart`; the temperature goes into the output layer."""
        self.eval()
        tensors = {
            "items": self.item_inputs(),
            "item_bias": self.popularity_weight * self.popularity,
            "queries": self.queries,
            "place_bias": self.place_bias,
            "hidden_weight": self.hidden.weight,
            "hidden_bias": self.hidden.bias,
            "output_weight": self.output.weight / self.temperature,
            "output_bias": self.output.bias / self.temperature,
        }
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


@dataclass(frozen=True, eq=False)
class HeadExamples:
    """Points whose user text vector is known: they teach the head to use it."""

    histories: Lists
    """(M), oldest first."""
    targets: NDArray[np.int64]
    """(M,), the next item."""
    user_embeddings: NDArray[np.float32]
    """(M, D)"""


def train_sequence_head(
    head: SequenceHead,
    *,
    histories: Lists,
    examples: HeadExamples | None,
    validate: Callable[[_Arrays], float],
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    positions_per_user: int,
    seed: int,
    show_progress: bool = False,
) -> _Arrays:
    """Trains with a full softmax over the catalogue and gives the arrays that validated best.

    Args:
        head: untrained.
        histories: (n_users), training items, oldest first.
        examples: points with user text vectors, seen once in every epoch beside the drawn ones.
        validate: takes the arrays; higher is better.
        epochs: passes; the rate falls to zero along a cosine.
        batch_size: points in one step.
        learning_rate: peak rate.
        weight_decay: of AdamW.
        positions_per_user: points drawn from each history in one epoch.
        seed: of points, order and dropout.
        show_progress: a bar.

    Raises:
        TrainingError: the loss is not a number.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    width = head.user_width
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    best_score, best = -np.inf, head.to_arrays()
    bar = tqdm(range(epochs), desc="ranking head", disable=not show_progress)
    for _ in bar:
        ends, starts = _draw_points(histories, positions_per_user, generator)
        values, targets = histories.values, histories.values[ends]
        text = np.zeros((len(ends), width + 1), dtype=np.float32)
        if examples is not None:
            shift = len(values)
            values = np.concatenate([values, examples.histories.values])
            ends = np.concatenate([ends, examples.histories.offsets[1:] + shift])
            starts = np.concatenate([starts, examples.histories.offsets[:-1] + shift])
            targets = np.concatenate([targets, examples.targets])
            given = np.ones((len(examples.targets), 1), dtype=np.float32)
            text = np.concatenate([text, np.concatenate([examples.user_embeddings, given], axis=1)])
        head.train()
        total = 0.0
        order = generator.permutation(len(ends))
        for rows in np.array_split(order, max(1, len(order) // batch_size)):
            flat = ends[rows, None] - 1 - np.arange(head.history_length)
            mask = flat >= starts[rows, None]
            padded = torch.from_numpy(np.where(mask, values[np.maximum(flat, 0)], 0))
            items = head.item_inputs()
            users = head.user_vectors(items, padded, torch.from_numpy(mask), torch.from_numpy(text[rows]))
            loss = nn.functional.cross_entropy(head.scores(items, users), torch.from_numpy(targets[rows]))
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"head: the loss is {loss.item()}; lower head.learning_rate ({learning_rate:g})"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        schedule.step()
        arrays = head.to_arrays()
        score = validate(arrays)
        if score > best_score:
            best_score, best = score, arrays
        bar.set_postfix(loss=f"{total / len(order):.3f}", validation=f"{score:.4f}")
    return best


def _draw_points(
    histories: Lists, per_user: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Gives flat positions of targets, and where each history begins; a first item is no target."""
    keys = generator.random(len(histories.values))
    users = np.repeat(np.arange(len(histories)), histories.counts)
    starts = histories.offsets[:-1][users]
    possible = np.flatnonzero(np.arange(len(users)) > starts)
    # The `per_user` smallest random keys of each user.
    order = possible[np.lexsort((keys[possible], users[possible]))]
    place = np.arange(len(order)) - np.searchsorted(users[order], users[order])
    chosen = np.sort(order[place < per_user])
    return chosen, starts[chosen]
