"""From checked columns to a `Dataset`: filter, number, sort."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.columns import Ids, Numbers
from lora_rec.data.dataset import Dataset
from lora_rec.errors import DataError


def build_dataset(
    *,
    users: Ids,
    items: Ids,
    item_ids: NDArray[np.str_],
    item_fields: dict[str, tuple[str, ...]],
    times: Numbers | None,
    ratings: NDArray[np.float64] | None,
    min_rating: float | None,
) -> Dataset:
    """Filters, numbers and sorts columns that `validate` has found no problem in.

    Raises:
        DataError: no rating reaches `min_rating`.

    Warns:
        UserWarning: rows repeat a user, an item and a time.
    """
    keep = np.arange(len(users.codes))
    if min_rating is not None and ratings is not None:
        keep = np.flatnonzero(ratings >= min_rating)
        if not keep.size:
            raise DataError(
                f"min_rating: no rating reaches {min_rating} (highest: {ratings.max()}); lower it"
            )
    user_ids, user_rows = _number_users(users.names, users.codes[keep])
    by_name = np.argsort(item_ids)
    places = by_name[np.searchsorted(item_ids, items.names, sorter=by_name)]
    item_rows = places[items.codes[keep]]
    seconds = times.values[keep] if times is not None else None
    keys = [] if times is None else [times.values[keep]]
    if times is not None and times.fraction is not None:
        keys.insert(0, times.fraction[keep])
    order = np.lexsort([*keys, user_rows])  # stable: ties stay in the order of the rows
    notes = []
    if times is not None and times.unit != "seconds":
        notes.append(f"the times are {times.unit}; they were read as such")
    moved = int((order != np.argsort(user_rows, kind="stable")).sum())
    if moved:
        notes.append(f"{moved:,} interactions were not in the order of their times; they were sorted")
    repeats = count_repeats(user_rows, item_rows, seconds) if seconds is not None else 0
    if repeats:
        note = f"{repeats:,} interactions repeat a user, an item and a time; drop them if they are copies"
        warnings.warn(f"data: {note}", stacklevel=3)
    return Dataset(
        user_ids=user_ids,
        item_ids=item_ids,
        item_fields=item_fields,
        users=user_rows[order],
        items=item_rows[order],
        times=seconds[order] if seconds is not None else None,
        ratings=ratings[keep][order] if ratings is not None else None,
        notes=tuple(notes),
    )


def _number_users(
    names: NDArray[np.str_], codes: NDArray[np.int64]
) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Numbers the users that are left by the length of their id, then by the id: 2 comes before 10."""
    there = np.bincount(codes, minlength=len(names)) > 0
    order = np.lexsort((names, np.char.str_len(names)))
    order = order[there[order]]
    place = np.full(len(names), -1, np.int64)
    place[order] = np.arange(len(order))
    return names[order], place[codes]


def count_repeats(users: NDArray[np.int64], items: NDArray[np.int64], times: NDArray[np.int64] | None) -> int:
    """Counts rows that repeat a user, an item and, where there are times, a time.

    >>> count_repeats(np.array([0, 0, 0]), np.array([7, 7, 7]), np.array([1, 1, 2]))
    1
    """
    columns = (users, items) if times is None else (users, items, times)
    order = np.lexsort(columns[::-1])
    same = np.ones(max(len(order) - 1, 0), bool)
    for column in columns:
        same &= np.diff(column[order]) == 0
    return int(same.sum())
