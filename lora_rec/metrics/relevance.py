"""How well lists hit what each user took: recall, NDCG, MRR and hit rate, with binary gains.

Every function takes all users at once and gives one value per user. A user without a relevant item gets NaN:
take means with `numpy.nanmean`, which leaves such users out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_rec.metrics.lists import divide, flatten_per_list, lists_at_k


def recall_at_k(
    recommended: NDArray[np.integer[Any]], relevant: Sequence[ArrayLike], *, k: int
) -> NDArray[np.float64]:
    """Share of a user's relevant items that are among the first `k`.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        relevant: U sequences of item indices, in any order; an item given twice counts once.
        k: at least 1, at most K.

    Returns:
        (U,), within [0, 1]; NaN for a user without a relevant item. The divisor is the number of relevant
        items, also where it is above `k`.

    Raises:
        ValueError: lists that `lists_at_k` refuses, another number of users in `relevant`, or a relevant
            item that is not an index from 0.

    >>> recall_at_k(np.array([[4, 2, 7]]), [[2, 9]], k=3)
    array([0.5])
    """
    hits, n_relevant = find_hits(recommended, relevant, k=k)
    return divide(hits.sum(axis=1), n_relevant)


def ndcg_at_k(
    recommended: NDArray[np.integer[Any]], relevant: Sequence[ArrayLike], *, k: int
) -> NDArray[np.float64]:
    """Discounted gain of the first `k`, divided by that of the best list of this length.

    A hit at rank `r` gains 1 / log2(r + 1); the best list starts with min(k, number of relevant items) hits.
    Arguments, errors and NaN are those of `recall_at_k`.

    Returns:
        (U,), within [0, 1].

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 20(4), 2002,
    with binary gains and base 2.

    >>> ndcg_at_k(np.array([[4, 2, 7]]), [[4]], k=3)
    array([1.])
    >>> bool(ndcg_at_k(np.array([[4, 2, 7]]), [[2]], k=3)[0] == 1 / np.log2(3))
    True
    """
    hits, n_relevant = find_hits(recommended, relevant, k=k)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    return divide(hits @ discounts, ideal[np.minimum(n_relevant, k)])


def mrr_at_k(
    recommended: NDArray[np.integer[Any]], relevant: Sequence[ArrayLike], *, k: int
) -> NDArray[np.float64]:
    """One divided by the rank of the first hit, 0 where none of the first `k` is one.

    Arguments, errors and NaN are those of `recall_at_k`.

    Returns:
        (U,), within [0, 1].

    >>> mrr_at_k(np.array([[4, 2, 7]]), [[7, 2]], k=3)
    array([0.5])
    """
    hits, n_relevant = find_hits(recommended, relevant, k=k)
    reciprocal = np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)
    return np.where(n_relevant > 0, reciprocal, np.nan)


def hit_rate_at_k(
    recommended: NDArray[np.integer[Any]], relevant: Sequence[ArrayLike], *, k: int
) -> NDArray[np.float64]:
    """1 where at least one of the first `k` is relevant, else 0.

    Arguments, errors and NaN are those of `recall_at_k`.

    Returns:
        (U,), 0 or 1.

    >>> hit_rate_at_k(np.array([[4, 2, 7], [4, 2, 7]]), [[7], [8]], k=3)
    array([1., 0.])
    """
    hits, n_relevant = find_hits(recommended, relevant, k=k)
    return np.where(n_relevant > 0, hits.any(axis=1).astype(np.float64), np.nan)


def find_hits(
    recommended: NDArray[np.integer[Any]], relevant: Sequence[ArrayLike], *, k: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Gives which slots hold a relevant item, (U, k), and the number of distinct relevant items, (U,).

    Arguments and errors are those of `recall_at_k`.
    """
    top = lists_at_k(recommended, k=k)
    n_users = len(top)
    lengths, items = flatten_per_list(relevant, n_lists=n_users, name="relevant")
    n_items = 1 + max(int(items.max(initial=0)), int(top.max(initial=0)))
    if n_users * n_items > np.iinfo(np.int64).max:
        raise ValueError(f"relevant: item {n_items - 1} is too large; number the items from 0 first")
    # One number per pair of user and item turns all the ragged look-ups into one. Sorting and
    # searching them took a thirtieth of the time of numpy.unique and numpy.isin (50,000 users, numpy 2.4).
    users = np.arange(n_users)
    pairs = np.sort(np.repeat(users, lengths) * n_items + items)
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    wanted = users[:, None] * n_items + top
    found = np.append(pairs, -1)[np.searchsorted(pairs, wanted)] == wanted
    return found & (top >= 0), np.bincount(pairs // n_items, minlength=n_users)
