"""The ranking head in numpy: one user vector from a history, so a list is a dot product over the catalogue.

It holds two parts side by side: the item-item model of `linear`, and the small transformer of `sequence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Lists
from lora_rec.rank.linear import LinearModel
from lora_rec.rank.sequence import SequencePart

_Array = NDArray[np.float32]
SEQUENCE_ARRAYS = tuple(SequencePart.__dataclass_fields__)


@dataclass(frozen=True, eq=False)
class RankingHead:
    """Both parts and the weight of the second."""

    linear: LinearModel
    sequence: SequencePart
    sequence_weight: float
    """Factor of the sequence part's scores, chosen on validation data; 0 leaves the linear part alone."""

    def item_vectors(self) -> _Array:
        """(N, R + W + 1), what user vectors are multiplied with."""
        weighted = self.sequence_weight * np.column_stack([self.sequence.items, self.sequence.item_bias])
        return np.concatenate([self.linear.item_vectors(), weighted.astype(np.float32)], axis=1)

    def user_vectors(self, histories: Lists, user_embeddings: _Array | None = None) -> _Array:
        """Gives (U, R + W + 1); see `SequencePart.user_vectors`."""
        sequence = self.sequence.user_vectors(histories, user_embeddings)
        ones = np.ones((len(sequence), 1), dtype=np.float32)
        return np.concatenate([self.linear.user_vectors(histories), sequence, ones], axis=1)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Gives every array by name, for a safetensors file; the factors in half precision."""
        arrays: dict[str, NDArray[np.generic]] = {
            name: getattr(self.sequence, name) for name in SEQUENCE_ARRAYS
        }
        arrays |= {"factors": self.linear.factors.astype(np.float16), "scales": self.linear.scales}
        return arrays | {"settings": np.array([self.linear.decay, self.sequence_weight], dtype=np.float64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> RankingHead:
        """Reads what `to_arrays` gave."""
        decay, weight = (float(value) for value in arrays["settings"])
        fields = {name: np.asarray(arrays[name], dtype=np.float32) for name in SEQUENCE_ARRAYS}
        factors = np.asarray(arrays["factors"], dtype=np.float32)
        linear = LinearModel(factors, np.asarray(arrays["scales"], dtype=np.float32), decay)
        return cls(linear, SequencePart(**fields), weight)
