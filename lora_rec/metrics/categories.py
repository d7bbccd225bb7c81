"""What lists offer by category: variety, share of the categories, and fit to the categories of the history.

All take `item_categories`, (n_items, C): an item's weights, at least 0, in each category. They are divided by
their sum, so that every item counts once; zeros and ones do. A row of zeros is an item without category.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_rec.metrics.diversity import mean_distance
from lora_rec.metrics.lists import check_items, divide, flatten_per_list, lists_at_k

_LISTS_PER_STEP = 4096  # the categories of the items of this many users are held at a time


def category_ild_at_k(
    recommended: NDArray[np.integer[Any]], item_categories: NDArray[Any], *, k: int
) -> NDArray[np.float64]:
    """Intra-list diversity by category: the mean cosine distance of the weights, 1 - cos, over all pairs.

    An item without category is at distance 1 from all others, also from another one without: nothing says
    that they are alike. `ild_at_k` refuses such items instead.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        item_categories: (n_items, C), weights, at least 0; zeros for an item without category.
        k: at least 1, at most K.

    Returns:
        (U,), within [0, 1]; 0 for a list with fewer than two items.

    Raises:
        ValueError: lists that `lists_at_k` refuses, weights of another shape, negative or not finite, or a
            listed item without a row.

    Source: that of `ild_at_k`, on the weights.

    >>> category_ild_at_k(np.array([[0, 1], [0, 2]]), np.array([[1, 0], [2, 0], [0, 0]]), k=2)
    array([0., 1.])
    """
    top, weights = _check(recommended, item_categories, k=k)
    return mean_distance(top, weights, np.sqrt(np.einsum("nc,nc->n", weights, weights)))


def category_entropy_at_k(
    recommended: NDArray[np.integer[Any]], item_categories: NDArray[Any], *, k: int
) -> NDArray[np.float64]:
    """Shannon entropy, in bits, of the category mix of the first `k`: the mean weights of their items.

    Items without category are left out of the mix. Arguments and errors are those of `category_ild_at_k`.

    Returns:
        (U,), within [0, log2(C)]: 0 for one category, log2(C) for all alike; NaN for a list without an item
        with a category. Divide by log2(C) for a share of the most there can be.

    >>> category_entropy_at_k(np.array([[0, 1], [0, 2]]), np.array([[1, 0], [0, 1], [0, 0]]), k=2)
    array([1., 0.])
    """
    top, weights = _check(recommended, item_categories, k=k)
    mixes = _mixes_of(top, weights)
    bits = -np.sum(mixes * np.log2(np.where(mixes > 0, mixes, 1.0)), axis=1)
    return np.where(mixes.any(axis=1), np.maximum(bits, 0.0), np.nan)


def category_coverage_at_k(
    recommended: NDArray[np.integer[Any]], item_categories: NDArray[Any], *, k: int
) -> NDArray[np.float64]:
    """Share of the categories that at least one of the first `k` has.

    Arguments and errors are those of `category_ild_at_k`.

    Returns:
        (U,), within [0, 1]; 0 for an empty list. The divisor is the number of categories that some item of
        the catalogue has, also where it is above what `k` items can show; NaN where it is 0.

    Source: Zhai et al., "Beyond independent relevance", SIGIR 2003, S-recall, with the catalogue's categories
    as the subtopics of every user.

    >>> category_coverage_at_k(np.array([[0, 1], [0, 2]]), np.array([[1, 0], [0, 1], [0, 0]]), k=2)
    array([1. , 0.5])
    """
    top, weights = _check(recommended, item_categories, k=k)
    n_shown = np.count_nonzero(_mixes_of(top, weights), axis=1)
    return divide(n_shown, np.full(len(top), np.count_nonzero(weights.any(axis=0))))


def calibration_error_at_k(
    recommended: NDArray[np.integer[Any]],
    item_categories: NDArray[Any],
    histories: Sequence[ArrayLike],
    *,
    k: int,
    alpha: float = 0.01,
) -> NDArray[np.float64]:
    """How far the categories of the first `k` are from those of the user's history, in bits.

    The sum of p log2(p / q) over the categories, with p the mix of the history, and q that of the list moved
    towards it: (1 - alpha) q + alpha p, so that a category that the list lacks costs a finite amount.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        item_categories: (n_items, C), weights, at least 0; an item without category is left out of a mix.
        histories: U sequences of item indices; an item given twice counts twice.
        k: at least 1, at most K.
        alpha: share of the history's mix in that of the list, within (0, 1).

    Returns:
        (U,), within [0, log2(1 / alpha)]: 0 where both mixes are the same, the upper end where they share no
        category or no item of the list has one. NaN where no item of the history has one.

    Raises:
        ValueError: as in `category_ild_at_k`, `alpha` outside (0, 1), another number of histories than lists,
            or an item in a history that has no row.

    Source: Steck, "Calibrated recommendations", RecSys 2018, equations 2, 3 and 6, with all items of a list
    and of a history weighed alike, and base 2.

    >>> calibration_error_at_k(np.array([[0]]), np.array([[1, 0], [0, 1]]), [[1, 1]], k=1, alpha=0.25)
    array([2.])
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: {alpha} is not within (0, 1); 0.01 is usual")
    top, weights = _check(recommended, item_categories, k=k)
    lengths, items = flatten_per_list(histories, n_lists=len(top), name="histories")
    check_items(items, n_items=len(weights), where="item_categories", used="in a history")
    wanted, shown = _mixes(lengths, items, weights), _mixes_of(top, weights)
    taken = wanted > 0
    ratio = np.divide(wanted, (1 - alpha) * shown + alpha * wanted, out=np.ones(wanted.shape), where=taken)
    error = np.sum(wanted * np.log2(ratio), axis=1)
    return np.where(taken.any(axis=1), np.maximum(error, 0.0), np.nan)


def _check(
    recommended: NDArray[np.integer[Any]], item_categories: NDArray[Any], *, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Gives the lists, (U, k), and the weights, of which every row sums to 1 or 0."""
    top = lists_at_k(recommended, k=k)
    weights = np.asarray(item_categories, dtype=np.float64)
    if weights.ndim != 2:
        raise ValueError(
            f"item_categories: shape {weights.shape} is not (n_items, C); give the weights of each item"
        )
    check_items(top, n_items=len(weights), where="item_categories")
    bad = ~(np.isfinite(weights) & (weights >= 0)).all(axis=1)
    if bad.any():
        raise ValueError(
            f"item_categories: a weight of item {int(np.argmax(bad))} is negative or not finite "
            f"({int(bad.sum())} such items); give 0 for a category that an item does not have"
        )
    sums = weights.sum(axis=1, keepdims=True)
    return top, np.divide(weights, sums, out=np.zeros(weights.shape), where=sums > 0)


def _mixes_of(top: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return _mixes((top >= 0).sum(axis=1), top[top >= 0], weights)


def _mixes(
    lengths: NDArray[np.int64], items: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Gives the mean weights of each list, (U, C): a row sums to 1, or to 0 where no item has a category."""
    owners, categories = np.nonzero(weights)  # an item has few of all categories: only these are added up
    values = weights[owners, categories]
    n_entries = np.bincount(owners, minlength=len(weights))
    first_entry = np.cumsum(n_entries) - n_entries
    n_categories = weights.shape[1]
    ends = np.cumsum(lengths)
    mixes = np.zeros((len(lengths), n_categories))
    for start in range(0, len(lengths), _LISTS_PER_STEP):
        some = lengths[start : start + _LISTS_PER_STEP]
        taken = items[ends[start] - lengths[start] : ends[start + len(some) - 1]]
        repeats = n_entries[taken]
        within = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        entries = np.repeat(first_entry[taken], repeats) + within
        rows = np.repeat(np.repeat(np.arange(len(some)), some), repeats)
        cells = np.bincount(
            rows * n_categories + categories[entries],
            weights=values[entries],
            minlength=len(some) * n_categories,
        )
        mixes[start : start + len(some)] = cells.reshape(len(some), n_categories)
    sums = mixes.sum(axis=1, keepdims=True)
    return np.divide(mixes, sums, out=mixes, where=sums > 0)
