"""The ranking head in numpy: from a history to scores over the catalogue.

It adds up two parts: the item-item model of `item_item`, and the small transformer of `sequence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.search import top_k_of
from lora_rec.rank.sequence import SequencePart

_Array = NDArray[np.float32]
SEQUENCE_ARRAYS = tuple(SequencePart.__dataclass_fields__)


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
            name: getattr(self.sequence, name) for name in SEQUENCE_ARRAYS
        }
        arrays |= {"neighbours": self.linear.neighbours, "weights": self.linear.weights.astype(np.float16)}
        return arrays | {"settings": np.array([self.linear.decay, self.sequence_weight], dtype=np.float64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> RankingHead:
        """Reads what `to_arrays` gave."""
        decay, weight = (float(value) for value in arrays["settings"])
        fields = {name: np.asarray(arrays[name], dtype=np.float32) for name in SEQUENCE_ARRAYS}
        neighbours = np.asarray(arrays["neighbours"], dtype=np.int32)
        linear = ItemItemModel(neighbours, np.asarray(arrays["weights"], dtype=np.float32), decay)
        return cls(linear, SequencePart(**fields), weight)
