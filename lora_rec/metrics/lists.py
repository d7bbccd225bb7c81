"""Recommended lists as one integer array: how they are padded, checked and averaged, for every metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

EMPTY = -1


def pad_lists(lists: Sequence[ArrayLike], *, k: int) -> NDArray[np.int64]:
    """Puts ragged lists into one array, cut at `k` and filled with -1 at the end.

    Args:
        lists: one sequence of item indices per user, best first.
        k: width of the result, at least 1.

    Returns:
        (U, k).

    Raises:
        ValueError: `k` is below 1, or a list holds something else than integers.

    >>> pad_lists([[4, 2, 7], [1]], k=2)
    array([[ 4,  2],
           [ 1, -1]])
    """
    if k < 1:
        raise ValueError(f"k: {k} is below 1; give the length of the lists to judge")
    lengths, flat = flatten_lists([items[:k] for items in map(np.asarray, lists)], name="lists")
    padded = np.full((len(lengths), k), EMPTY, dtype=np.int64)
    padded[np.arange(k) < lengths[:, None]] = flat
    return padded


def flatten_lists(lists: Sequence[ArrayLike], *, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Gives the length of each list (U,) and all items one after the other.

    Raises:
        ValueError: a list is not one-dimensional, or holds something else than integers; the text has `name`.

    >>> flatten_lists([[4, 2], [], [7]], name="relevant")
    (array([2, 0, 1]), array([4, 2, 7]))
    """
    arrays = [np.asarray(items) for items in lists]
    if any(array.ndim != 1 for array in arrays):
        raise ValueError(
            f"{name}: one of the lists is not one-dimensional; give one sequence of items per user"
        )
    lengths = np.fromiter(map(len, arrays), dtype=np.int64, count=len(arrays))
    filled = [array for array in arrays if len(array)]  # numpy makes an empty list float
    flat = np.concatenate(filled) if filled else np.empty(0, dtype=np.int64)
    if flat.dtype.kind not in "iu":
        raise ValueError(f"{name}: items are {flat.dtype}, not integers; give item indices")
    return lengths, flat.astype(np.int64, copy=False)


def as_marks(values: ArrayLike, *, name: str) -> NDArray[np.bool_]:
    """Reads yes and no, given as bool or as 1 and 0.

    Raises:
        ValueError: a value is something else, such as -1 or NaN.

    >>> as_marks([1, 0], name="labels").tolist()
    [True, False]
    """
    array = np.asarray(values)
    if array.size and not np.isin(array, (0, 1)).all():
        wrong = array[~np.isin(array, (0, 1))].flat[0]
        raise ValueError(f"{name}: {wrong} is neither 0 nor 1; give what is so as 1 and all else as 0")
    return array.astype(bool)


def flatten_per_list(
    given: Sequence[ArrayLike], *, n_lists: int, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Flattens what is given beside the lists, such as the histories of their users.

    Raises:
        ValueError: as in `flatten_lists`, another number of entries than lists, or an index below 0.
    """
    if len(given) != n_lists:
        raise ValueError(
            f"{name}: {len(given)} users, but recommended has {n_lists}; give one entry per list"
        )
    lengths, items = flatten_lists(given, name=name)
    if np.any(items < 0):
        raise ValueError(f"{name}: {items.min()} is below 0; give item indices from 0")
    return lengths, items


def lists_at_k(recommended: NDArray[np.integer[Any]], *, k: int) -> NDArray[np.int64]:
    """Checks the lists and cuts them at `k`.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        k: at least 1, at most K.

    Returns:
        (U, k).

    Raises:
        ValueError: not a two-dimensional integer array, `k` outside 1..K, an index below -1, an item behind
            an empty slot, or an item twice in one list.
    """
    given = np.asarray(recommended)
    if given.ndim != 2 or given.dtype.kind not in "iu":
        raise ValueError(
            f"recommended: {given.dtype} of shape {given.shape} is not a two-dimensional array "
            "of integers; pad ragged lists with pad_lists(lists, k=k)"
        )
    width = given.shape[1]
    if not 1 <= k <= width:
        raise ValueError(
            f"k: {k} is not within 1..{width}, the width of recommended; recommend longer lists or lower k"
        )
    lists: NDArray[np.int64] = given.astype(np.int64, copy=False)
    _refuse(np.any(lists < EMPTY, axis=1), "an index below -1; only -1 marks an empty slot")
    empty = lists == EMPTY
    _refuse(np.any(empty[:, :-1] & ~empty[:, 1:], axis=1), "an item behind an empty slot; move -1 to the end")
    ordered = np.sort(lists, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != EMPTY)
    _refuse(np.any(repeated, axis=1), "an item twice; recommend each item once")
    return lists[:, :k]


def check_items(items: NDArray[np.int64], *, n_items: int, where: str, used: str = "recommended") -> None:
    """Refuses an item that the input called `where`, with `n_items` entries, says nothing about.

    Raises:
        ValueError: an index from `n_items`; an empty slot is let through.
    """
    highest = int(items.max(initial=EMPTY))
    if highest >= n_items:
        raise ValueError(
            f"{where}: item {highest} is {used}, but there are {n_items} items; give all of them"
        )


def check_counts(
    item_counts: NDArray[np.integer[Any]], *, top: NDArray[np.int64], n_users: int | None = None
) -> NDArray[Any]:
    """Gives the counts of users as an array, (n_items,).

    Raises:
        ValueError: not one number per item, a listed item without one, or one outside 0..n_users; without
            `n_users`, one that is negative or not finite.
    """
    counts = np.asarray(item_counts)
    if counts.ndim != 1:
        raise ValueError(f"item_counts: shape {counts.shape} is not (n_items,); give one count per item")
    check_items(top, n_items=len(counts), where="item_counts")
    highest = np.finfo(np.float64).max if n_users is None else n_users
    bad = ~((counts >= 0) & (counts <= highest))
    if bad.any():
        item = int(np.argmax(bad))
        allowed = "0 or more" if n_users is None else f"within 0..{n_users}, the number of users"
        raise ValueError(
            f"item_counts: {counts[item]} of item {item} is not {allowed}; count each user once per item"
        )
    return counts


def mean_of_listed(top: NDArray[np.int64], item_values: NDArray[Any]) -> NDArray[np.float64]:
    """Gives the mean of a value per item over each list, (U,); NaN for an empty list.

    >>> mean_of_listed(np.array([[2, 0], [1, -1], [-1, -1]]), np.array([1.0, 5.0, 2.0]))
    array([1.5, 5. , nan])
    """
    listed = top != EMPTY
    # An empty slot points at the last item, whose value is masked out.
    values = np.where(listed, item_values[top], 0.0) if len(item_values) else np.zeros(top.shape)
    return divide(values.sum(axis=1), listed.sum(axis=1))


def divide(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    """Divides, giving NaN where the denominator is not above 0.

    >>> divide(np.array([1, 1]), np.array([4, 0]))
    array([0.25,  nan])
    """
    out = np.full(len(denominator), np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def _refuse(bad_rows: NDArray[np.bool_], reason: str) -> None:
    if bad_rows.any():
        raise ValueError(f"recommended: list {int(np.argmax(bad_rows))} has {reason}")
