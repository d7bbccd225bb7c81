"""The linear item-item model in closed form: EASE, as a dot product, with texts as further rows.

EASE (Steck 2019, arXiv 1905.03375) solves min |X - XB|^2 + l|B|^2 with a zero diagonal: B_ij = -P_ij / P_jj
for P = (X'X + l)^-1. With the eigenvectors V and values s of X'X, l P = 1 - Q Q' for Q = V sqrt(s / (s + l)),
so the score of an item j outside the history h is (sum of w_i Q_i over h) . Q_j / (1 - Q_j . Q_j): exact, and
never an N x N matrix when there are fewer users than items. Text vectors T (N, D) join as D further rows a T'
of X (closed-form side information; Jeunen et al. 2020, "Closed-form models for collaborative filtering with
side-information").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists

MAX_RANK = 1024  # of a matrix too large to be decomposed exactly
EXACT_ROWS = 4096
EXACT_CELLS = 200_000_000
USERS_AT_ONCE = 64  # bounds the memory of their histories' factors
ENTRIES_AT_ONCE = 1 << 14
"""Of a large matrix, in one product with a basis: each takes the basis's width, twice."""


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Factors of a fitted item-item model."""

    factors: NDArray[np.float32]
    """(N, R), Q of the module's docstring."""
    scales: NDArray[np.float32]
    """(N,), 1 / (1 - Q_j . Q_j)."""
    decay: float
    """Weight of an item of the history over that of the next newer one; the newest has 1."""

    def item_vectors(self) -> NDArray[np.float32]:
        """(N, R), what a user vector is multiplied with."""
        return self.factors * self.scales[:, None]

    def user_vectors(self, histories: Lists) -> NDArray[np.float32]:
        """Gives (U, R), the recency-weighted sum of the history's factors; zero for an empty history."""
        ends = np.repeat(histories.offsets[1:], histories.counts)
        recency = (self.decay ** (ends - 1 - np.arange(len(histories.values)))).astype(np.float32)
        weights = recency * histories.relative_strengths()
        users = np.repeat(np.arange(len(histories)), histories.counts)
        kept = np.flatnonzero(weights > 1e-6)  # older items add nothing in single precision
        result = np.zeros((len(histories), self.factors.shape[1]), dtype=np.float32)
        for start in range(0, len(histories), USERS_AT_ONCE):
            stop = min(start + USERS_AT_ONCE, len(histories))
            rows = kept[slice(*np.searchsorted(users[kept], (start, stop)))]
            weighted = self.factors[histories.values[rows]] * weights[rows, None]
            result[start:stop] = sum_by_row(weighted, users[rows] - start, n_rows=stop - start)
        return result


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvectors and values of X'X, from which models of every regularisation follow."""

    vectors: NDArray[np.float32]
    """(N, R), unit columns, largest value first."""
    values: NDArray[np.float32]
    """(R,)"""

    def model(self, *, regularisation: float, decay: float) -> LinearModel:
        """Gives the fitted model."""
        factors = self.vectors * np.sqrt(self.values / (self.values + regularisation))
        scales = 1 / np.maximum(1 - np.einsum("nr,nr->n", factors, factors), 1e-6)
        return LinearModel(factors, scales, decay)


def decompose(
    histories: Lists,
    *,
    n_items: int,
    text_vectors: NDArray[np.float32] | None = None,
    text_weight: float = 0.0,
    max_rank: int = MAX_RANK,
    seed: int = 0,
) -> Spectrum:
    """Decomposes the user-item matrix, with text vectors as further rows.

    Args:
        histories: items of each user, with strengths where there are some; of a repeat the first counts.
        n_items: N.
        text_vectors: (N, D), unit length.
        text_weight: factor of the text rows; 0 leaves them out.
        max_rank: number of eigenvectors where the matrix is too large to be decomposed exactly.
        seed: of the random start in that case.
    """
    rows = np.repeat(np.arange(len(histories)), histories.counts)
    pairs, first = np.unique(rows * np.int64(n_items) + histories.values, return_index=True)
    users, items = pairs // n_items, pairs % n_items
    weights = histories.relative_strengths()[first]
    used, users = np.unique(users, return_inverse=True)
    text = (
        None if text_vectors is None or text_weight == 0 else text_weight * text_vectors.T.astype(np.float32)
    )
    n_rows = len(used) + (0 if text is None else len(text))
    if not has_all_factors(n_rows, n_items, n_users=len(used)):
        return _decompose_large(
            users, items, weights, text, n_users=len(used), n_items=n_items, rank=max_rank, seed=seed
        )
    matrix = np.zeros((n_rows, n_items), dtype=np.float32)
    matrix[users, items] = weights
    if text is not None:
        matrix[len(used) :] = text
    if n_rows <= n_items:
        values, left = np.linalg.eigh((matrix @ matrix.T).astype(np.float64))
        kept = np.flatnonzero(values > 1e-6 * values[-1])[::-1]
        vectors = matrix.T @ (left[:, kept] / np.sqrt(values[kept])).astype(np.float32)
    else:
        values, right = np.linalg.eigh((matrix.T @ matrix).astype(np.float64))
        kept = np.flatnonzero(values > 1e-6 * values[-1])[::-1]
        vectors = right[:, kept].astype(np.float32)
    return Spectrum(vectors, values[kept].astype(np.float32))


def has_all_factors(n_rows: int, n_items: int, *, n_users: int) -> bool:
    """Says whether `decompose` gives all factors of a matrix, or the leading ones."""
    return min(n_rows, n_items) <= EXACT_ROWS and n_users * n_items <= EXACT_CELLS


def _decompose_large(
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    weights: NDArray[np.float32],
    text: NDArray[np.float32] | None,
    *,
    n_users: int,
    n_items: int,
    rank: int,
    seed: int,
    n_iterations: int = 4,
) -> Spectrum:
    """Finds the leading eigenvectors by subspace iteration; the matrix stays sparse (Halko et al. 2011)."""
    # Whole users, so many that their entries are about as many as may be looked at together.
    ends = np.searchsorted(users, np.arange(n_users), side="right")
    starts = np.flatnonzero(np.diff(ends // ENTRIES_AT_ONCE, prepend=-1))
    bounds = np.concatenate([[0], ends[starts[1:] - 1], [len(users)]])

    def gram(block: NDArray[np.float32]) -> NDArray[np.float32]:
        result = np.zeros_like(block) if text is None else text.T @ (text @ block)
        for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
            own, mine, shares = users[start:stop] - users[start], items[start:stop], weights[start:stop, None]
            per_user = sum_by_row(block[mine] * shares, own, n_rows=int(own[-1]) + 1)
            order = np.argsort(mine, kind="stable")
            rows, sums = _sums((per_user[own] * shares)[order], mine[order])
            result[rows] += sums
        return result

    rank = min(rank, n_items)
    start = np.random.default_rng(seed).standard_normal((n_items, min(n_items, rank + 16))).astype(np.float32)
    basis = np.linalg.qr(start)[0]
    for _ in range(n_iterations):
        basis = np.linalg.qr(gram(basis))[0]
    values, rotation = np.linalg.eigh((basis.T @ gram(basis)).astype(np.float64))
    kept = np.flatnonzero(values > 1e-6 * values[-1])[::-1][:rank]
    return Spectrum((basis @ rotation[:, kept].astype(np.float32)), values[kept].astype(np.float32))


def sum_by_row(values: NDArray[np.float32], rows: NDArray[np.int64], *, n_rows: int) -> NDArray[np.float32]:
    """Adds vectors that belong to one row; `rows` never decreases.

    >>> sum_by_row(np.ones((3, 2), np.float32), np.array([0, 0, 2]), n_rows=3).tolist()
    [[2.0, 2.0], [0.0, 0.0], [1.0, 1.0]]
    """
    result = np.zeros((n_rows, values.shape[1]), dtype=np.float32)
    if len(rows):
        there, sums = _sums(values, rows)
        result[there] = sums
    return result


def _sums(
    values: NDArray[np.float32], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Gives the rows that there are and the sum of each."""
    starts = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
    return rows[starts], np.add.reduceat(values, starts, axis=0)


def centre(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gives (N, D) unit vectors without what all share, so that their cosine tells items apart."""
    centred = vectors - vectors.mean(axis=0)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
