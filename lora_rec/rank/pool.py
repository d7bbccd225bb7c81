"""What strategies of re-ranking choose from, and what each of them is asked.

Shapes: U users, N candidates, best first, M of them in the pool, D dimensions, C categories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float32]
_LEAST = np.float32(1e-30)


@dataclass(frozen=True, eq=False)
class Pool:
    """What there is to choose from: the foremost M of N candidates.

    A missing candidate has relevance 0, a vector of zeros, no category.
    """

    every_relevance: _Array
    """(U, N), also of the candidates beyond the pool: each user's scores scaled to 0..1, or `Chances`."""
    every_present: NDArray[np.bool_]
    """(U, N)"""
    k: int
    """Places that will be filled."""
    diversity: np.float32
    """0 is the relevance alone, 1 is diversity alone."""
    vectors: _Array
    """(U, M, D), of length 1, or 0 where a vector is all zeros; (U, M, 0) where none are looked at."""
    categories: _Array
    """(U, M, C); (U, M, 0) for strategies that look at none."""
    mix: _Array
    """(U, C), of the history; sums to 1 or 0."""
    popularity: _Array
    """(U, M), within 0..1; (U, 0) for strategies that do not look at it."""
    users: NDArray[np.int64]
    """(U,), 0..U - 1: the row of each user."""
    comparable: bool = False
    """Whether the relevance of one user compares to that of another, as that of `Chances` does."""

    @property
    def relevance(self) -> _Array:
        """(U, M), of the pool."""
        return self.every_relevance[:, : self.vectors.shape[1]]

    @property
    def present(self) -> NDArray[np.bool_]:
        """(U, M), of the pool."""
        return self.every_present[:, : self.vectors.shape[1]]

    def cosines(self, taken: NDArray[np.int64]) -> _Array:
        """Gives the cosine of every candidate with the one taken, (U, M)."""
        return np.matmul(self.vectors, self.vectors[self.users, taken][:, :, None])[:, :, 0]

    def standard_relevance(self) -> _Array:
        """Gives (U, N), mean 0 and deviation 1 over each user's candidates; zeros if all are equal.

        Of a comparable relevance, the root of a chance, it is the chance's logarithm instead.
        """
        if self.comparable:
            return 2 * np.log(np.maximum(self.every_relevance, _LEAST))
        n = np.maximum(self.every_present.sum(axis=1, keepdims=True), 1).astype(np.float32)
        centred = self.every_relevance - self.every_relevance.sum(axis=1, keepdims=True) / n
        deviation = np.sqrt(np.square(centred).sum(axis=1, keepdims=True, where=self.every_present) / n)
        return centred / np.maximum(deviation, np.finfo(np.float32).eps)

    def highest_beyond(self, values: _Array) -> _Array:
        """Gives (U,), the highest of values (U, N) beyond the pool; a huge negative one where none is."""
        n = self.vectors.shape[1]
        there = self.every_present[:, n:]
        # Ceilings are up to twice this, which must not overflow; at diversity 1 they are 0 times it.
        return values[:, n:].max(axis=1, initial=np.finfo(np.float32).min / 4, where=there)


class Objective(Protocol):
    """A strategy at work on a pool."""

    def scores(self) -> _Array:
        """Gives (U, M), higher is better; the caller may change the array."""

    def take(self, taken: NDArray[np.int64]) -> None:
        """Is told which candidate (U,) each list got."""
