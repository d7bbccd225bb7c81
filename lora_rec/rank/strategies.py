"""What each strategy of re-ranking prefers at each place of a list, for many users at once.

A strategy scores the candidates given those that were taken, and is told which one was taken next. Those that
look at vectors are defined as in pyversity 0.2 and give its lists; here they work for many users, never form
the matrix of all similarities (but for `cover`, which is a sum over it), and leave the choice to the caller,
so that quotas hold. pyversity's code: https://github.com/Pringled/pyversity, MIT.

Shapes: U users, N candidates, best first, D dimensions, C categories.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lora_rec.rank.pool import Objective, Pool

_Array = NDArray[np.float32]
SMOOTHING = np.float32(0.01)
"""Share of the history's mix in the list's, so that a category that is missing does not cost infinity."""
_NOTHING_NEW = np.float32(1e-6)  # below this a residual is what rounding left of zero


class RelevanceOrder:
    """The candidates as they came: what diversity 0 is."""

    def __init__(self, pool: Pool) -> None:
        self._order = np.broadcast_to(
            -np.arange(pool.relevance.shape[1], dtype=np.float32), pool.present.shape
        )

    def scores(self) -> _Array:
        """Earlier is better."""
        return self._order.copy()

    def take(self, taken: NDArray[np.int64]) -> None:
        """Changes nothing."""


class MaximalMarginalRelevance:
    """(1 - d) relevance - d max cosine with the list, cosines below 0 counting as 0.

    Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking", SIGIR 1998.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._relevance = (1 - pool.diversity) * pool.relevance
        self._nearest = np.zeros_like(pool.relevance)

    def scores(self) -> _Array:
        """Relevance less the nearest of the list."""
        scores = self._nearest * -self._pool.diversity
        scores += self._relevance
        return scores

    def take(self, taken: NDArray[np.int64]) -> None:
        """Updates the nearest."""
        np.maximum(self._nearest, self._pool.cosines(taken), out=self._nearest)


class MaxSumDistance:
    """(1 - d) relevance + d times the sum of the distances, 1 - cos, to the list.

    Source: Borodin, Lee and Ye, "Max-sum diversification, monotone submodular functions and dynamic updates",
    PODS 2012. The sum grows with the list, so relevance counts most at its first places.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._scores = (1 - pool.diversity) * pool.relevance

    def scores(self) -> _Array:
        """Relevance and distances."""
        return self._scores.copy()

    def take(self, taken: NDArray[np.int64]) -> None:
        """Adds the distances to one more item."""
        distances = 1 - self._pool.cosines(taken)
        distances *= self._pool.diversity
        self._scores += distances


class _Residuals:
    """Squared distance of each candidate from what the list spans, by an incremental Cholesky factor.

    Source: Chen, Zhang and Zhou, "Fast greedy MAP inference for determinantal point process to improve
    recommendation diversity", NeurIPS 2018, algorithm 1.
    """

    def __init__(self, squared_norms: _Array, *, k: int) -> None:
        n_users, n = squared_norms.shape
        self.squared = squared_norms
        self._factor = np.empty((n_users, k, n), dtype=np.float32)
        self._n_taken = 0

    def take(self, taken: NDArray[np.int64], products: _Array) -> None:
        """Projects out one more item, given its dot products (U, N) with all, which are changed."""
        users, n = np.arange(len(taken)), self._n_taken
        if n:
            known = self._factor[:, :n]
            products -= np.matmul(known[users, :, taken][:, None, :], known)[:, 0]
        left = self.squared[users, taken][:, None]
        # What adds nothing new is not divided by next to nothing.
        scale = np.where(left > _NOTHING_NEW, 1 / np.sqrt(np.maximum(left, _NOTHING_NEW)), 0)
        new = np.multiply(products, scale, out=self._factor[:, n])
        self._n_taken += 1
        self.squared -= new * new
        np.maximum(self.squared, 0, out=self.squared)


class DeterminantalPointProcess:
    """The largest determinant of the kernel w_i w_j cos(i, j), with w = exp((1 - d) z-score of relevance).

    The determinant grows by w_i^2 times the residual of i; its logarithm is compared.

    Source: Chen, Zhang and Zhou, NeurIPS 2018.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._log_weights = 2 * (1 - pool.diversity) * pool.standard_relevance()[:, : pool.relevance.shape[1]]
        self._residuals = _Residuals(np.ones_like(pool.relevance), k=pool.k)

    def scores(self) -> _Array:
        """Log of the gain; items that add nothing new go by relevance."""
        gains = np.maximum(self._residuals.squared, _NOTHING_NEW)
        np.log(gains, out=gains)
        gains += self._log_weights
        return gains

    def take(self, taken: NDArray[np.int64]) -> None:
        """Projects the item out."""
        self._residuals.take(taken, self._pool.cosines(taken))


class SlidingSpectrumDecomposition:
    """(1 - d) z-score of relevance + d times the distance from the span of the list.

    The first item is the most relevant one. Vectors get a last value of 1, and the window is the whole list.

    Source: Huang et al., "Sliding spectrum decomposition for diversified recommendation", KDD 2021, eq. 12.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._first = pool.relevance
        self._relevance = (1 - pool.diversity) * pool.standard_relevance()
        self._residuals = _Residuals(np.square(pool.vectors).sum(axis=2) + 1, k=pool.k)
        self._empty = True

    def scores(self) -> _Array:
        """Relevance and distance from the list."""
        if self._empty:
            return self._first.copy()
        return self._relevance + self._pool.diversity * np.sqrt(self._residuals.squared)

    def take(self, taken: NDArray[np.int64]) -> None:
        """Projects the item out."""
        self._empty = False
        self._residuals.take(taken, self._pool.cosines(taken) + 1)


class Coverage:
    """(1 - d) relevance + d times the gain in the sum over candidates of sqrt(sum of cosines with the list).

    Cosines below 0 count as 0. Takes N^2 square roots a place: meant for a hundred candidates.

    Source: Puthiya Parambath, Usunier and Grandvalet, "A coverage-based approach to recommendation diversity
    on similarity graph", RecSys 2016.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._cosines = np.clip(np.matmul(pool.vectors, pool.vectors.transpose(0, 2, 1)), 0, 1)
        self._covered = np.zeros_like(pool.relevance)

    def scores(self) -> _Array:
        """Relevance and gain in coverage."""
        gains = np.sqrt(self._cosines + self._covered[:, None, :]).sum(axis=2)
        gains -= np.sqrt(self._covered).sum(axis=1, keepdims=True)
        return (1 - self._pool.diversity) * self._pool.relevance + self._pool.diversity * gains

    def take(self, taken: NDArray[np.int64]) -> None:
        """Adds what the item covers."""
        self._covered += self._cosines[self._pool.users, taken]


class ExplicitAspects:
    """(1 - d) relevance + d sum_c p(c) w(i, c) prod_{j in list} (1 - w(j, c)).

    This is xQuAD with categories as aspects; p is the history's mix and w the items' weights: every
    category that the user likes, the most liked first.

    Source: Santos, Macdonald and Ounis, "Exploiting query reformulations for web search result
    diversification", WWW 2010.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._relevance = (1 - pool.diversity) * pool.relevance
        self._wanted = pool.mix.copy()

    def scores(self) -> _Array:
        """Relevance and what is still wanted of the item's categories."""
        gains = np.matmul(self._pool.categories, self._wanted[:, :, None])[:, :, 0]
        return self._relevance + self._pool.diversity * gains

    def take(self, taken: NDArray[np.int64]) -> None:
        """Wants less of the item's categories."""
        self._wanted *= 1 - self._pool.categories[self._pool.users, taken]


class Calibration:
    """(1 - d) sum of relevance - d KL(p || q): the list's mix q of categories follows the history's, p.

    q is the mean weight of the list's items, an item without categories counting as zeros, smoothed to
    (1 - .01) q + .01 p.

    Source: Steck, "Calibrated recommendations", RecSys 2018, with all items weighted alike.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._relevance = (1 - pool.diversity) * pool.relevance
        self._total = np.zeros_like(pool.mix)
        self._n_taken = 0
        # A category that the history lacks adds 0 to the divergence, also where the list has none of it.
        self._floor = np.where(pool.mix > 0, SMOOTHING * pool.mix, 1)[:, None, :]
        self._entropy = (pool.mix * np.log(np.where(pool.mix > 0, pool.mix, 1))).sum(axis=1)

    def scores(self) -> _Array:
        """Relevance less the divergence of the list with the item in it."""
        mix = (self._total[:, None, :] + self._pool.categories) * ((1 - SMOOTHING) / (self._n_taken + 1))
        mix += self._floor
        matched = np.matmul(np.log(mix), self._pool.mix[:, :, None])[:, :, 0]
        return self._relevance - self._pool.diversity * (self._entropy[:, None] - matched)

    def take(self, taken: NDArray[np.int64]) -> None:
        """Adds the item's categories to the list's."""
        self._total += self._pool.categories[self._pool.users, taken]
        self._n_taken += 1


class Novelty:
    """(1 - d) relevance - d popularity: what few took.

    >>> pool = Pool(
    ...     every_relevance=np.array([[1, 0.5, 0]], "f4"), every_present=np.ones((1, 3), bool), k=2,
    ...     diversity=np.float32(0.5), vectors=np.zeros((1, 3, 0)), categories=np.zeros((1, 3, 0)),
    ...     mix=np.zeros((1, 0), "f4"), popularity=np.array([[1, 0, 0]], "f4"), users=np.arange(1),
    ... )
    >>> Novelty(pool).scores().tolist()
    [[0.0, 0.25, 0.0]]
    """

    def __init__(self, pool: Pool) -> None:
        self._scores = (1 - pool.diversity) * pool.relevance - pool.diversity * pool.popularity

    def scores(self) -> _Array:
        """Relevance less popularity."""
        return self._scores.copy()

    def take(self, taken: NDArray[np.int64]) -> None:
        """Changes nothing: what is in the list makes no item more novel."""


def _mmr_ceiling(pool: Pool) -> _Array:
    return (1 - pool.diversity) * pool.highest_beyond(pool.every_relevance)


def _dpp_ceiling(pool: Pool) -> _Array:
    return 2 * (1 - pool.diversity) * pool.highest_beyond(pool.standard_relevance())


CEILINGS: dict[str, Callable[[Pool], _Array]] = {"mmr": _mmr_ceiling, "dpp": _dpp_ceiling}
"""What no candidate beyond the pool scores more than, (U,), where scores only fall as the list grows: a list
that stays above it is what all candidates would give."""

OBJECTIVES: dict[str, Callable[[Pool], Objective]] = {
    "mmr": MaximalMarginalRelevance,
    "msd": MaxSumDistance,
    "dpp": DeterminantalPointProcess,
    "ssd": SlidingSpectrumDecomposition,
    "cover": Coverage,
    "xquad": ExplicitAspects,
    "calibrated": Calibration,
    "novel": Novelty,
}
