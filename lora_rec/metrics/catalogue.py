"""What all lists together show of the catalogue: coverage, concentration, and how far they differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.metrics.lists import check_items, lists_at_k


def coverage_at_k(recommended: NDArray[np.integer[Any]], *, k: int, n_items: int) -> float:
    """Share of the catalogue that is among the first `k` of at least one list.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        k: at least 1, at most K.
        n_items: size of the catalogue.

    Raises:
        ValueError: lists that `lists_at_k` refuses, `n_items` below 1, or an item outside the catalogue.

    Source: Shani and Gunawardana, "Evaluating recommendation systems", Recommender Systems Handbook, 2011.
    The same as `CatalogCoverage(k, normalize=True)` of rectools.

    >>> coverage_at_k(np.array([[0, 1], [0, 2]]), k=2, n_items=4)
    0.75
    """
    return int(np.count_nonzero(_exposures(recommended, k=k, n_items=n_items))) / n_items


def gini_at_k(recommended: NDArray[np.integer[Any]], *, k: int, n_items: int) -> float:
    """Gini index of how often each item of the catalogue is among the first `k`, items never shown included.

    Arguments and errors are those of `coverage_at_k`.

    Returns:
        Within [0, 1]: 0 where all items are shown equally often, 1 where one item has all slots; NaN where
        nothing is recommended.

    Source: Shani and Gunawardana (see `coverage_at_k`): the sum of (2 j - n - 1) p_j / (n - 1) over the
    items from the least to the most shown, with p_j the share of slots. Others (RecBole) divide by n.

    >>> gini_at_k(np.array([[0, 1], [2, 3]]), k=2, n_items=4), gini_at_k(np.array([[0], [0]]), k=1, n_items=4)
    (0.0, 1.0)
    """
    shown = np.sort(_exposures(recommended, k=k, n_items=n_items))
    if not shown.any():
        return float("nan")
    weights = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float(weights @ shown / (shown.sum() * max(n_items - 1, 1)))


def exposure_entropy_at_k(recommended: NDArray[np.integer[Any]], *, k: int, n_items: int) -> float:
    """Shannon entropy, in bits, of the items' shares of the slots among the first `k`.

    Arguments and errors are those of `coverage_at_k`.

    Returns:
        Within [0, log2(n_items)]: 0 where one item has all slots; NaN where nothing is recommended. Two to
        its power is the number of items that, shown equally often, would be as diverse.

    Source: Shani and Gunawardana (see `coverage_at_k`).

    >>> exposure_entropy_at_k(np.array([[0, 1], [2, 3]]), k=2, n_items=9)
    2.0
    """
    shown = _exposures(recommended, k=k, n_items=n_items)
    if not shown.any():
        return float("nan")
    shares = shown[shown > 0] / shown.sum()
    return max(0.0, float(-(shares * np.log2(shares)).sum()))


def personalization_at_k(recommended: NDArray[np.integer[Any]], *, k: int) -> float:
    """How far the lists of two users differ: 1 minus the mean cosine of their sets of items, over all pairs.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        k: at least 1, at most K.

    Returns:
        Within [0, 1]: 0 where all get the same items, 1 where no two users share one; 0 with fewer than two
        lists. Empty lists are left out.

    Raises:
        ValueError: lists that `lists_at_k` refuses.

    Source: `personalization` of recmetrics; with full lists also the mean inter-user distance of Zhou
    et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS 107(10), 2010.

    >>> personalization_at_k(np.array([[0, 1, 2, 3], [4, 1, 0, 5]]), k=4)
    0.5
    """
    top = lists_at_k(recommended, k=k)
    listed = top >= 0
    lengths = listed.sum(axis=1)
    n_lists = int((lengths > 0).sum())
    if n_lists < 2:
        return 0.0
    # As in `ild_at_k`: the cosines of all pairs are in the length of the sum of the unit vectors.
    items, slots = np.unique(top[listed], return_inverse=True)
    units = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths)
    total = np.bincount(slots, weights=units, minlength=len(items))
    similarity = (total @ total - n_lists) / (n_lists * (n_lists - 1))
    return float(np.clip(1.0 - similarity, 0.0, 1.0))


def _exposures(recommended: NDArray[np.integer[Any]], *, k: int, n_items: int) -> NDArray[np.int64]:
    """Gives how many lists have each item among the first `k`, (n_items,)."""
    top = lists_at_k(recommended, k=k)
    if n_items < 1:
        raise ValueError(f"n_items: {n_items} is below 1; give the size of the catalogue")
    check_items(top, n_items=n_items, where="n_items")
    return np.bincount(top[top >= 0], minlength=n_items)
