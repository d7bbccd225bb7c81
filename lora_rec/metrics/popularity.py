"""How well known the recommended items are: novelty, popularity, and what is relevant beyond popularity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_rec.metrics.lists import (
    check_counts,
    check_items,
    divide,
    flatten_per_list,
    lists_at_k,
    mean_of_listed,
)
from lora_rec.metrics.relevance import find_hits


def novelty_at_k(
    recommended: NDArray[np.integer[Any]], item_counts: NDArray[np.integer[Any]], *, k: int, n_users: int
) -> NDArray[np.float64]:
    """Mean self-information of the first `k`, in bits: -log2 of the share of users who took the item.

    The share is (count + 1) / (n_users + 1), so an item that nobody took has log2(n_users + 1) bits instead
    of infinitely many, and one that everybody took has 0.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        item_counts: (n_items,), number of distinct training users of each item.
        k: at least 1, at most K.
        n_users: number of training users.

    Returns:
        (U,), at least 0; NaN for an empty list.

    Raises:
        ValueError: lists that `lists_at_k` refuses, an item without a count, or a count outside 0..n_users.

    Source: Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS
    107(10), 2010, with one user added who took everything. `MeanInvUserFreq` of rectools adds none, and
    counts an item that nobody took as taken by one user.

    >>> novelty_at_k(np.array([[0, 1]]), np.array([7, 0]), k=2, n_users=7)
    array([1.5])
    """
    top = lists_at_k(recommended, k=k)
    counts = check_counts(item_counts, top=top, n_users=n_users)
    return mean_of_listed(top, -np.log2((counts.astype(np.float64) + 1) / (n_users + 1)))


def popularity_at_k(
    recommended: NDArray[np.integer[Any]], item_counts: NDArray[np.integer[Any]], *, k: int
) -> NDArray[np.float64]:
    """Average recommendation popularity: the mean number of training users of the first `k`.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        item_counts: (n_items,), number of distinct training users of each item.
        k: at least 1, at most K.

    Returns:
        (U,), at least 0; NaN for an empty list.

    Raises:
        ValueError: lists that `lists_at_k` refuses, an item without a count, or a negative count.

    Source: Yin et al., "Challenging the long tail recommendation", PVLDB 5(9), 2012. The same as
    `AvgRecPopularity` of rectools where no user has an item twice.

    >>> popularity_at_k(np.array([[0, 1]]), np.array([7, 0]), k=2)
    array([3.5])
    """
    top = lists_at_k(recommended, k=k)
    return mean_of_listed(top, check_counts(item_counts, top=top))


def popularity_lift_at_k(
    recommended: NDArray[np.integer[Any]],
    item_counts: NDArray[np.integer[Any]],
    histories: Sequence[ArrayLike],
    *,
    k: int,
) -> NDArray[np.float64]:
    """How far the first `k` are more popular than what the user took: ratio of the mean counts, minus 1.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        item_counts: (n_items,), number of distinct training users of each item.
        histories: U sequences of item indices; an item given twice counts twice.
        k: at least 1, at most K.

    Returns:
        (U,), at least -1; 0 where the list is as popular as the history. NaN for an empty list, and for a
        history that is empty or of items that nobody took.

    Raises:
        ValueError: as in `popularity_at_k`, another number of histories than lists, or an item in a history
            that is not an index with a count.

    Source: Abdollahpouri et al., "The connection between popularity bias, calibration, and fairness in
    recommendation", RecSys 2020, who take the ratio of a group's means; here it is taken for each user, so
    that users can be resampled, and its mean over users weighs all of them alike.

    >>> popularity_lift_at_k(np.array([[0, 1]]), np.array([5, 1, 2]), [[1, 2]], k=2)
    array([1.])
    """
    listed = popularity_at_k(recommended, item_counts, k=k)
    counts = np.asarray(item_counts)
    lengths, items = flatten_per_list(histories, n_lists=len(listed), name="histories")
    check_items(items, n_items=len(counts), where="item_counts", used="in a history")
    users = np.repeat(np.arange(len(lengths)), lengths)
    taken = np.bincount(users, weights=counts[items], minlength=len(lengths))
    return divide(listed, divide(taken, lengths)) - 1.0


def new_items_at_k(
    recommended: NDArray[np.integer[Any]], item_counts: NDArray[np.integer[Any]], *, k: int
) -> NDArray[np.float64]:
    """Share of the first `k` that nobody took in training. Arguments and errors: see `popularity_at_k`.

    Returns:
        (U,), within [0, 1]; NaN for an empty list.

    >>> new_items_at_k(np.array([[0, 1]]), np.array([7, 0]), k=2)
    array([0.5])
    """
    top = lists_at_k(recommended, k=k)
    return mean_of_listed(top, check_counts(item_counts, top=top) == 0)


def serendipity_at_k(
    recommended: NDArray[np.integer[Any]],
    relevant: Sequence[ArrayLike],
    item_counts: NDArray[np.integer[Any]],
    *,
    k: int,
) -> NDArray[np.float64]:
    """Relevance that popularity does not explain: the mean over the first `k` of hit x max(p - p_pop, 0).

    With n items, p = (n + 1 - r) / n for the rank r in the list, and p_pop the same for the rank by count,
    from 1 for the most popular; items of one count share a rank, so the next count has the next number. An
    item that nobody took has p_pop = 0. So a hit counts where it stands higher than popularity would put it.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        relevant: U sequences of item indices, in any order; an item given twice counts once.
        item_counts: (n_items,), number of distinct training users of each item.
        k: at least 1, at most K.

    Returns:
        (U,), within [0, 1]; 0 for an empty list, NaN for a user without a relevant item.

    Raises:
        ValueError: as in `recall_at_k` and `popularity_at_k`.

    Source: `Serendipity` of rectools, which gives a user without a relevant item 0 and leaves out empty
    lists. The idea, useful and not what a primitive model recommends, is that of Ge et al., "Beyond
    accuracy", RecSys 2010.

    >>> serendipity_at_k(np.array([[2, 0]]), [[2, 0]], np.array([3, 2, 1, 0]), k=2)
    array([0.25])
    """
    hits, n_relevant = find_hits(recommended, relevant, k=k)
    top = lists_at_k(recommended, k=k)
    counts = check_counts(item_counts, top=top)
    n_items = max(len(counts), 1)
    levels = np.unique(counts[counts > 0])
    popular_rank = len(levels) - np.searchsorted(levels, counts)
    popular_share = np.where(counts > 0, (n_items + 1 - popular_rank) / n_items, 0.0)
    share = (n_items + 1 - np.arange(1, k + 1)) / n_items
    beyond = np.maximum(share - popular_share[top], 0.0) if len(counts) else np.zeros(top.shape)
    mean = np.where(hits, beyond, 0.0).sum(axis=1) / np.maximum((top >= 0).sum(axis=1), 1)
    return np.where(n_relevant > 0, mean, np.nan)
