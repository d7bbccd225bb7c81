"""The linear part of the ranking head: each item's strongest weights on others, added up over a history.

A matrix of items by items is too large to serve, and its leading factors lose most of what it knows where
data is sparse, but a hundred weights a row keep it: on Amazon Beauty (12,101 items) the validation `ndcg@10`
of the whole matrix is .0670, of 1,024 factors .0537, of 200 weights a row .0671, of 50 weights .0665.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists

ROWS_AT_ONCE = 1 << 16
"""Items of histories whose weights are added up at a time."""
LEAST_WEIGHT = 1e-3  # of an item of the history: older ones add next to nothing


@dataclass(frozen=True, eq=False)
class ItemItemModel:
    """Sparse weights from the items of a history to those that may follow."""

    neighbours: NDArray[np.int32]
    """(N, M), the items that each item speaks for or against most."""
    weights: NDArray[np.float32]
    """(N, M), how much."""
    decay: float
    """Weight of an item of the history over that of the next newer one; the newest has 1."""

    def scores(self, histories: Lists) -> NDArray[np.float32]:
        """Gives (U, N): for each history the sum of its items' weights, the newest counting most."""
        n_users, n_items = len(histories), len(self.neighbours)
        weights = self.history_weights(histories)
        kept = np.flatnonzero(weights)
        users = np.repeat(np.arange(n_users), histories.counts)[kept]
        items = histories.values[kept]
        firsts = np.searchsorted(users, np.arange(n_users + 1))
        total = np.empty((n_users, n_items), dtype=np.float32)
        start = 0
        while start < n_users:
            after = int(np.searchsorted(firsts, firsts[start] + ROWS_AT_ONCE, side="right"))
            stop = max(start + 1, after - 1)
            rows = slice(firsts[start], firsts[stop])
            cells = (users[rows, None] - start) * np.int64(n_items) + self.neighbours[items[rows]]
            values = self.weights[items[rows]] * weights[kept[rows], None]
            added = np.bincount(cells.ravel(), values.ravel(), minlength=(stop - start) * n_items)
            total[start:stop] = added.reshape(stop - start, n_items)
            start = stop
        return total

    def history_weights(self, histories: Lists) -> NDArray[np.float64]:
        """Gives what each item of the histories counts, by its age and strength; 0 for one too old."""
        ages = np.repeat(histories.offsets[1:], histories.counts) - 1 - np.arange(len(histories.values))
        recency = self.decay**ages
        return np.where(recency >= LEAST_WEIGHT, recency, 0) * histories.relative_strengths()


def keep_strongest(
    weights: NDArray[np.float32], *, n_neighbours: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Gives the columns (R, M) and values (R, M) of the weights of largest size in each row of (R, N).

    >>> columns, values = keep_strongest(np.array([[0.1, -0.5, 0.2]], np.float32), n_neighbours=2)
    >>> columns.tolist(), values.round(1).tolist()
    ([[1, 2]], [[-0.5, 0.20000000298023224]])
    """
    n_kept = min(n_neighbours, weights.shape[1])
    columns = np.argpartition(-np.abs(weights), n_kept - 1, axis=1)[:, :n_kept]
    columns.sort(axis=1)
    return columns.astype(np.int32), np.take_along_axis(weights, columns, axis=1)
