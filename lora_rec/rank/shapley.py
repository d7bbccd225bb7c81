"""Shapley values (Shapley 1953) of what a vector is made from: items of a history, words of a text.

A value is the mean, over orders of the parts, of what a part adds when it joins those before it. Over every
order of up to `EXACT` parts that is exact; of more parts, orders are drawn and each is taken with its reverse
(Castro et al. 2009, "Polynomial calculation of the Shapley value based on sampling"; antithetic pairs:
Mitchell et al. 2022, arXiv 2104.12199). However few the orders, what the parts add in one order is the whole
difference to nothing at all, so nothing is left over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
EXACT = 5
"""Up to so many parts every order is taken."""
SUBSETS = 400
"""Sets of parts that are looked at, about, over all orders, of which there are at least 8."""


@dataclass(frozen=True, eq=False)
class ShapleyValues:
    """Of n parts and vectors of width W."""

    nothing: _Floats
    """(W,), what there is without any part."""
    draws: _Floats
    """(P, n, W), what each part adds, by pair of orders; P is 1 where the values are exact."""

    @property
    def values(self) -> _Floats:
        """(n, W); with `nothing`, they add up to the vector of all parts."""
        return self.draws.mean(axis=0)

    def errors(self, along: NDArray[np.floating]) -> _Floats:
        """Gives the standard errors (n,) of the values along a direction (W,); 0 where they are exact."""
        draws = self.draws @ along
        if len(draws) == 1:
            return np.zeros(draws.shape[1])
        return draws.std(axis=0, ddof=1) / np.sqrt(len(draws))


def shapley_values(
    vectors_of: Callable[[NDArray[np.bool_]], NDArray[np.floating]],
    *,
    n_parts: int,
    n_subsets: int = SUBSETS,
) -> ShapleyValues:
    """Takes a vector apart; the orders are the same for the same n.

    Args:
        vectors_of: gives the vectors (S, W) of sets of parts (S, n), true where a part is in; each set is
            asked for once.
        n_parts: n.
        n_subsets: see `SUBSETS`.

    >>> both_or_nothing = lambda sets: 4.0 * sets.all(axis=1, keepdims=True)
    >>> shapley_values(both_or_nothing, n_parts=2).values.tolist()
    [[2.0], [2.0]]
    """
    orders = _orders(n_parts, n_subsets)
    places = np.argsort(orders, axis=1)  # (M, n), when each part joins
    kept = places[:, None, :] < np.arange(n_parts + 1)[None, :, None]
    sets, back = np.unique(kept.reshape(len(orders) * (n_parts + 1), n_parts), axis=0, return_inverse=True)
    vectors = np.asarray(vectors_of(sets), dtype=np.float64)
    chains = vectors[back.reshape(-1)].reshape(len(orders), n_parts + 1, -1)
    added = np.take_along_axis(np.diff(chains, axis=1), places[:, :, None], axis=1)
    if n_parts <= EXACT:
        return ShapleyValues(chains[0, 0], added.mean(axis=0, keepdims=True))
    half = len(orders) // 2
    return ShapleyValues(chains[0, 0], (added[:half] + added[half:]) / 2)


def _orders(n_parts: int, n_subsets: int) -> NDArray[np.int64]:
    """Gives (M, n) orders, those of the second half the reverse of those of the first."""
    if n_parts <= EXACT:
        return np.array(list(permutations(range(n_parts))), dtype=np.int64)
    generator = np.random.default_rng(0)
    n_pairs = max(4, n_subsets // (2 * n_parts))
    half = np.array([generator.permutation(n_parts) for _ in range(n_pairs)])
    return np.concatenate([half, half[:, ::-1]])
