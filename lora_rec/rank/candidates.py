"""Orders given candidates in numpy: what a user had read, and what everybody clicked.

Where every day brings new items, as news do, there is no catalogue to rank but a list to order, and most of
its items have a text and nothing else. A candidate's score is its match with the history plus its bias:

    score = history_weight * sum_i a_i cos(c, h_i) + item_bias[c],   a = softmax_i(sharpness * cos(c, h_i))

The cosines are of text vectors after a learned projection, the attention prefers the items of the history
that are nearest to the candidate, and the bias holds the item's click rate in earlier lists, or what a new
item has instead. `train.text_match` and `train.candidates` learn them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import DataError

_Array = NDArray[np.float32]
ARRAYS = ("items", "item_bias", "text_mean", "projection")
NUMBERS = ("sharpness", "history_weight", "new_item_bias", "history_length")


@dataclass(frozen=True, eq=False)
class CandidateScorer:
    """Vectors and weights; N items, D the length of a text vector, W that of a projected one.

    >>> scorer = CandidateScorer(np.eye(2, dtype="f4"), np.zeros(2, "f4"), np.zeros(2, "f4"),
    ...     np.eye(2, dtype="f4"), sharpness=3.0, history_weight=5.0, new_item_bias=0.5, history_length=50)
    >>> scorer.scores(Lists.from_arrays([[1], []]), Lists.from_arrays([[0, 1], [0]])).tolist()
    [0.0, 5.0, 0.0]
    >>> with_news = scorer.with_items(np.array([[0.0, 2.0]], "f4"))  # its text alone is known
    >>> with_news.scores(Lists.from_arrays([[1]]), Lists.from_arrays([[0, 2]])).tolist()
    [0.0, 5.5]
    """

    items: _Array
    """(N, W), projected text vectors, unit length."""
    item_bias: _Array
    """(N,), for everybody."""
    text_mean: _Array
    """(D,), taken from a text vector before it is projected."""
    projection: _Array
    """(D, W)"""
    sharpness: float
    """Of the attention; 0 is the plain mean over the history."""
    history_weight: float
    new_item_bias: float
    """Bias of an item that was never shown."""
    history_length: int
    """Most recent items that are seen."""

    def scores(self, histories: Lists, candidates: Lists) -> _Array:
        """Gives one number per entry of `candidates.values`; an empty history leaves the biases.

        Args:
            histories: U lists of item ids, oldest first.
            candidates: U lists of item ids.

        Raises:
            DataError: another number of lists, or an item that is not known.
        """
        if len(histories) != len(candidates):
            raise DataError(
                f"candidates: {len(candidates)} lists for {len(histories)} histories; give one each"
            )
        for name, lists in (("histories", histories), ("candidates", candidates)):
            wrong = (lists.values < 0) | (lists.values >= len(self.items))
            if wrong.any():
                item = lists.values[np.argmax(wrong)]
                raise DataError(
                    f"{name}: item {item} is outside 0..{len(self.items) - 1}; add new items by with_items"
                )
        result = self.item_bias[candidates.values].astype(np.float32)
        for row, (history, shown) in enumerate(zip(histories, candidates, strict=True)):
            if len(history):
                cosines = self.items[shown] @ self.items[history[-self.history_length :]].T
                # The nearest item has attention 1: nothing overflows, and the sum is never 0.
                nearest = cosines.max(axis=1, keepdims=True)
                attention = np.exp(np.float32(self.sharpness) * (cosines - nearest))
                matches = (attention * cosines).sum(axis=1) / attention.sum(axis=1)
                result[candidates.offsets[row] : candidates.offsets[row + 1]] += (
                    np.float32(self.history_weight) * matches
                )
        return result

    def with_items(self, text_vectors: _Array) -> CandidateScorer:
        """Gives a scorer that knows further items, ids N, N + 1, ..., by their text vectors (M, D) alone.

        Raises:
            DataError: vectors of another length.
        """
        width = len(self.text_mean)
        if text_vectors.ndim != 2 or text_vectors.shape[1] != width:
            raise DataError(
                f"text_vectors: shape {text_vectors.shape}; give (M, {width}), of the same encoder"
            )
        bias = np.full(len(text_vectors), self.new_item_bias, dtype=np.float32)
        return replace(
            self,
            items=np.concatenate([self.items, project(text_vectors, self.text_mean, self.projection)]),
            item_bias=np.concatenate([self.item_bias, bias]),
        )

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Gives every array by name, for a safetensors file; the items in half precision."""
        arrays: dict[str, NDArray[np.generic]] = {name: getattr(self, name) for name in ARRAYS}
        arrays["items"] = self.items.astype(np.float16)
        return arrays | {"numbers": np.array([getattr(self, name) for name in NUMBERS], dtype=np.float64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> CandidateScorer:
        """Reads what `to_arrays` gave."""
        fields = {name: np.asarray(arrays[name], dtype=np.float32) for name in ARRAYS}
        sharpness, history_weight, new_item_bias, length = (float(value) for value in arrays["numbers"])
        return cls(
            **fields,
            sharpness=sharpness,
            history_weight=history_weight,
            new_item_bias=new_item_bias,
            history_length=int(length),
        )


def project(text_vectors: _Array, text_mean: _Array, projection: _Array) -> _Array:
    """Gives (N, W) unit vectors of texts (N, D): what all share is taken out first."""
    return unit_rows(unit_rows(text_vectors - text_mean) @ projection)


def unit_rows(vectors: _Array) -> _Array:
    """Gives rows of length 1; a row of zeros stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
