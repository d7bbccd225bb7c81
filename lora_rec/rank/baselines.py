"""The simple baselines that every list is compared with; EASE is `linear` without text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.rank.linear import sum_by_row

USERS_AT_ONCE = 64  # their histories' vectors lie side by side in memory
MOST_CELLS = 500_000_000
"""Items times users that `item_cosine_vectors` may lay out: 2 GB."""


def item_cosine_vectors(histories: Lists, *, n_items: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gives item-item cosine on interactions, as a dot product over the users who took an item.

    Returns:
        Vectors (N, U) of unit length, one axis per user, for the history's items and for the candidates
        alike; and the counts (N,). An item that nobody took is zero.
    """
    vectors = np.zeros((n_items, len(histories)), dtype=np.float32)
    vectors[histories.values, np.repeat(np.arange(len(histories)), histories.counts)] = 1
    counts = vectors.sum(axis=1)
    vectors /= np.sqrt(np.maximum(counts, 1))[:, None]
    return vectors, counts


def sum_of_history(histories: Lists, item_vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gives (U, D), the sum of the vectors of each history."""
    result = np.zeros((len(histories), item_vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(histories), USERS_AT_ONCE):
        stop = min(start + USERS_AT_ONCE, len(histories))
        values = histories.values[histories.offsets[start] : histories.offsets[stop]]
        rows = np.repeat(np.arange(stop - start), histories.counts[start:stop])
        result[start:stop] = sum_by_row(item_vectors[values], rows, n_rows=stop - start)
    return result
