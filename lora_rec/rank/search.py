"""Exact top-k over the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import ArgumentError
from lora_rec.rank.check import check_length

Wanted = tuple[int, NDArray[np.bool_] | None]
"""Length of a list, and which items (N,) it may hold; None for all."""
Top = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Items (U, K) and scores (U, K)."""
ITEMS_AT_ONCE = 1 << 16
"""Item vectors in one product: their scores stay in the processor's cache."""
SCORES_AT_ONCE = 1 << 24
"""Users times items in one block at most: about half a gigabyte with all that is added up."""


def users_at_once(n_items: int) -> int:
    """Gives how many users' scores over a catalogue are held at a time."""
    return min(256, max(1, SCORES_AT_ONCE // max(1, n_items)))


def top_k(
    user_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    *,
    k: int,
    exclude: Lists | None = None,
    block: int = 256,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Gives the best items of each user by dot product, exactly.

    Goes through the items in blocks and keeps what is above the worst of each list so far, so the scores of
    a million items are neither kept nor sorted, and the vectors may be memory-mapped.

    Args:
        user_vectors: (U, D).
        item_vectors: (N, D).
        k: see `top_k_of`.
        exclude: see `top_k_of`.
        block: users scored at a time.

    Raises:
        ArgumentError: a value is not finite, or `k` is no length of a list.
    """
    check_length(k)
    user_vectors = np.asarray(user_vectors, dtype=np.float32)  # two in half precision would be rounded in it
    n_users, n_items = len(user_vectors), len(item_vectors)
    k = min(k, n_items)
    items = np.full((n_users, k), -1, dtype=np.int64)
    scores = np.full((n_users, k), -np.inf, dtype=np.float32)
    for start in range(0, n_users, block):
        rows = np.arange(start, min(start + block, n_users))
        lists = None if exclude is None else exclude.take(rows)
        for first in range(0, n_items, ITEMS_AT_ONCE):
            part = user_vectors[rows] @ item_vectors[first : first + ITEMS_AT_ONCE].T
            left_out = None if lists is None else _within(lists, first, part.shape[1])
            _keep_best(items[start : start + block], scores[start : start + block], part, first, left_out)
    return items, scores


def _within(lists: Lists, first: int, n_items: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Gives rows and places of the lists' items among some `n_items` from `first` on."""
    places = lists.values - first
    chosen = (places >= 0) & (places < n_items)
    return np.repeat(np.arange(len(lists)), lists.counts)[chosen], places[chosen]


def _keep_best(
    items: NDArray[np.int64],
    scores: NDArray[np.float32],
    part: NDArray[np.float32],
    first: int,
    left_out: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
) -> None:
    """Puts what is better among the scores (U, B) of the items from `first` on into lists (U, K)."""
    check_finite(part)
    if left_out is not None:
        part[left_out] = -np.inf
    k = items.shape[1]
    for row, threshold in enumerate(scores[:, -1]):
        # Of equal scores the earlier item comes first, and it is in the list already.
        better = np.flatnonzero(part[row] > threshold)
        if len(better) > 4 * k:
            values = part[row, better]
            better = better[values >= np.partition(values, len(values) - k)[len(values) - k]]
        if len(better):
            values = np.concatenate([scores[row], part[row, better]])
            best = np.argsort(-values, kind="stable")[:k]
            items[row] = np.concatenate([items[row], better + first])[best]
            scores[row] = values[best]


def top_k_of(
    score: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    *,
    n_users: int,
    n_items: int,
    k: int,
    exclude: Lists | None = None,
    allowed: NDArray[np.bool_] | None = None,
    block: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Gives the best items of each user by any score.

    Args:
        score: gives new scores (B, N) for some users' numbers (B,).
        n_users: U.
        n_items: N.
        k: list length; at most N are given.
        exclude: U lists of items that are left out, e.g. those already seen.
        allowed: (N,), the items that may be given to anybody; all when left out.
        block: users scored at a time; `users_at_once` when left out.

    Returns:
        Items (U, K) and scores (U, K), best first, K = min(k, N); equal scores by item index. A user with
        fewer than K items left has -1 and -inf at the end.

    Raises:
        ArgumentError: a score is not finite.
    """
    (best,) = tops_of(score, [(k, allowed)], n_users=n_users, n_items=n_items, exclude=exclude, block=block)
    return best


def tops_of(
    score: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    wanted: Sequence[Wanted],
    *,
    n_users: int,
    n_items: int,
    exclude: Lists | None = None,
    block: int | None = None,
) -> list[Top]:
    """Gives several lists of each user, of other lengths or among other items, by scores made once.

    Args:
        score: see `top_k_of`, as for what is given and refused.
        wanted: `k` and `allowed` of each.
        n_users: U.
        n_items: N.
        exclude: see `top_k_of`.
        block: see `top_k_of`.
    """
    tops = [
        (np.empty((n_users, min(k, n_items)), np.int64), np.empty((n_users, min(k, n_items)), np.float32))
        for k, _ in wanted
    ]
    block = block or users_at_once(n_items)
    for start in range(0, n_users, block):
        rows = np.arange(start, min(start + block, n_users))
        lists = None if exclude is None else exclude.take(rows)
        found = score(rows)
        for place, ((k, allowed), (items, scores)) in enumerate(zip(wanted, tops, strict=True), start=1):
            own = found.copy() if place < len(wanted) else found
            items[rows], scores[rows] = best_of(own, k=k, exclude=lists, allowed=allowed)
    return tops


def best_of(
    scores: NDArray[np.float32],
    *,
    k: int,
    exclude: Lists | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Gives the best items of each row of scores (U, N), which are changed where items are left out.

    The arguments, what is given and the error are those of `top_k_of`.

    >>> items, _ = best_of(np.array([[1, 3, 2]], np.float32), k=2, exclude=Lists.from_arrays([[1]]))
    >>> items.tolist()
    [[2, 0]]
    """
    n_users, n_items = scores.shape
    k = min(k, n_items)
    check_finite(scores)
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    if exclude is not None:
        scores[np.repeat(np.arange(n_users), exclude.counts), exclude.values] = -np.inf
    items = np.empty((n_users, k), dtype=np.int64)
    best_scores = np.empty((n_users, k), dtype=np.float32)
    # Every item that ties with the k-th could belong to the list, so the threshold decides, not the
    # partition.
    threshold = np.partition(scores, n_items - k, axis=1)[:, n_items - k]
    for row in range(n_users):
        found = np.flatnonzero(scores[row] >= threshold[row])
        best = found[np.argsort(-scores[row, found], kind="stable")[:k]]
        items[row], best_scores[row] = best, scores[row, best]
    items[np.isneginf(best_scores)] = -1
    return items, best_scores


def check_finite(values: NDArray[np.float32]) -> None:
    """Refuses vectors, or the scores that tell of them and are far fewer.

    Raises:
        ArgumentError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise ArgumentError("user_vectors, item_vectors: a value is not finite; check what made them")
