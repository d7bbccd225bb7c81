"""The ranking head in numpy: from a history to scores over the catalogue.

It adds up two parts. The linear part is the item-item model of `item_item`. The sequence part pools
the history's item inputs (a projection of the text vector plus a residual per item id) with learned queries
and a bias per place in the history, adds the user's text vector where there is one, and maps that to the
items' space. `train.head` trains it in torch; this is the same arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Lists
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.search import top_k_of

_Array = NDArray[np.float32]
SEQUENCE_SHAPES = ("queries", "place_bias", "hidden_weight", "hidden_bias", "output_weight", "output_bias")


@dataclass(frozen=True, eq=False)
class SequencePart:
    """Weights of the sequence part; W its width, Q its queries, L its history length, D the text width."""

    items: _Array
    """(N, W), input of each item, also what it is scored by."""
    item_bias: _Array
    """(N,), relevance of an item to everybody."""
    queries: _Array
    """(Q, W)"""
    place_bias: _Array
    """(L, Q), added to the attention of the newest item first."""
    hidden_weight: _Array
    """(F, Q * W + D + 1); the last input says that there is a user text vector."""
    hidden_bias: _Array
    """(F,)"""
    output_weight: _Array
    """(W, F)"""
    output_bias: _Array
    """(W,)"""

    @property
    def text_width(self) -> int:
        """Length of the user text vectors."""
        return self.hidden_weight.shape[1] - self.queries.size - 1

    def user_vectors(self, histories: Lists, user_embeddings: _Array | None = None) -> _Array:
        """Gives (U, W).

        Args:
            histories: U lists, oldest first; the newest L items are seen. An empty one pools to zero.
            user_embeddings: (U, D), of the user tower; without them the head relies on the history's items.
        """
        padded, mask = newest_first(histories, length=len(self.place_bias))
        inputs = self.items[padded] * mask[:, :, None]
        logits = (
            inputs @ self.queries.T / math.sqrt(self.queries.shape[1]) + self.place_bias[: padded.shape[1]]
        )
        logits = np.where(mask[:, :, None], logits, -1e9)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        pooled = np.einsum("ulq,ulw->uqw", weights, inputs).reshape(len(padded), -1)
        text = np.zeros((len(padded), self.text_width + 1), dtype=np.float32)
        if user_embeddings is not None:
            text[:, :-1], text[:, -1] = user_embeddings, 1
        hidden = np.concatenate([pooled, text], axis=1) @ self.hidden_weight.T + self.hidden_bias
        return np.maximum(hidden, 0) @ self.output_weight.T + self.output_bias


@dataclass(frozen=True, eq=False)
class RankingHead:
    """Both parts and the weight of the second."""

    linear: ItemItemModel
    sequence: SequencePart
    sequence_weight: float
    """Factor of the sequence part's scores, chosen on validation data; 0 leaves the linear part alone."""

    @property
    def n_items(self) -> int:
        """N, items of the catalogue."""
        return len(self.sequence.items)

    def scores(self, histories: Lists, user_embeddings: _Array | None = None) -> _Array:
        """Gives (U, N); see `SequencePart.user_vectors`."""
        result = self.linear.scores(histories)
        if self.sequence_weight:
            weight = np.float32(self.sequence_weight)
            users = self.sequence.user_vectors(histories, user_embeddings)
            result += weight * (users @ self.sequence.items.T + self.sequence.item_bias)
        return result

    def top_k(
        self, histories: Lists, *, k: int, user_embeddings: _Array | None = None
    ) -> tuple[NDArray[np.int64], _Array]:
        """Gives the best items (U, K) outside each history, and their scores (U, K)."""

        def score(rows: NDArray[np.int64]) -> _Array:
            embeddings = None if user_embeddings is None else user_embeddings[rows]
            return self.scores(histories.take(rows), embeddings)

        return top_k_of(score, n_users=len(histories), n_items=self.n_items, k=k, exclude=histories)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Gives every array by name, for a safetensors file; the linear part's weights in half precision."""
        arrays: dict[str, NDArray[np.generic]] = {
            name: getattr(self.sequence, name) for name in SEQUENCE_SHAPES
        }
        arrays |= {"items": self.sequence.items, "item_bias": self.sequence.item_bias}
        arrays |= {"neighbours": self.linear.neighbours, "weights": self.linear.weights.astype(np.float16)}
        return arrays | {"settings": np.array([self.linear.decay, self.sequence_weight], dtype=np.float64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> RankingHead:
        """Reads what `to_arrays` gave."""
        decay, weight = (float(value) for value in arrays["settings"])
        fields = {
            name: np.asarray(arrays[name], dtype=np.float32)
            for name in (*SEQUENCE_SHAPES, "items", "item_bias")
        }
        neighbours = np.asarray(arrays["neighbours"], dtype=np.int32)
        linear = ItemItemModel(neighbours, np.asarray(arrays["weights"], dtype=np.float32), decay)
        return cls(linear, SequencePart(**fields), weight)


def newest_first(histories: Lists, *, length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Gives the newest items of each history as one table, newest first.

    Returns:
        Items (U, L), 0 where there is none, and a mask (U, L); L is at least 1.

    >>> table, mask = newest_first(Lists.from_arrays([[4, 5, 6], [7]]), length=2)
    >>> table.tolist(), mask.tolist()
    ([[6, 5], [7, 0]], [[True, True], [True, False]])
    """
    width = max(1, min(length, int(histories.counts.max(initial=0))))
    places = np.arange(width)
    mask = places[None, :] < histories.counts[:, None]
    flat = histories.offsets[1:, None] - 1 - places[None, :]
    if not len(histories.values):
        return np.zeros(mask.shape, dtype=np.int64), mask
    return np.where(mask, histories.values[np.where(mask, flat, 0)], 0), mask
