"""Leaves interactions, users and items out of a data set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Dataset
from lora_rec.errors import DataError


def keep_frequent(dataset: Dataset, *, min_interactions: int) -> Dataset:
    """Leaves out rare users and items, in one pass: users first, then items among the users left.

    What counts is distinct pairs of user and item, of the whole log, as in published 5-core sets: where it is
    split by time, an item may stay for what is taken of it in the test alone. After the second step a user
    may again have fewer; that is what published counts of one pass mean. Items leave the catalogue, so they
    are not ranked either.

    Args:
        dataset: the interactions.
        min_interactions: distinct pairs that a user, and then an item, has to have; at least 1.

    Raises:
        DataError: `min_interactions` is below 1, or nothing is left.
    """
    if min_interactions < 1:
        raise DataError(f"keep_frequent.min_interactions: {min_interactions}; give at least 1")
    pairs = np.unique(dataset.users * dataset.n_items + dataset.items)
    users, items = np.divmod(pairs, dataset.n_items)
    user_stays = np.bincount(users, minlength=dataset.n_users) >= min_interactions
    counts = np.bincount(items[user_stays[users]], minlength=dataset.n_items)
    item_stays = counts >= min_interactions
    rows = user_stays[dataset.users] & item_stays[dataset.items]
    if not rows.any():
        raise DataError(
            f"keep_frequent: nothing is left with min_interactions={min_interactions}; "
            "lower it or give more data"
        )
    note = (
        f"{int((~user_stays).sum()):,} users and {int((~item_stays).sum()):,} items with fewer than "
        f"{min_interactions} interactions in the whole log left out"
    )
    return _keep(dataset, rows, items=item_stays, note=note)


def keep_rated(dataset: Dataset, *, min_rating: float) -> Dataset:
    """Leaves out interactions with a lower rating, and users who have no other; the catalogue stays whole.

    Raises:
        DataError: there are no ratings, or none reaches `min_rating`.
    """
    if dataset.ratings is None:
        raise DataError("min_rating: the data has no ratings; leave it out")
    rows = dataset.ratings >= min_rating
    if not rows.any():
        highest = dataset.ratings.max(initial=0)
        raise DataError(f"min_rating: no rating reaches {min_rating} (highest: {highest}); lower it")
    note = f"{int((~rows).sum()):,} interactions rated below {min_rating:g} left out"
    return _keep(dataset, rows, items=np.ones(dataset.n_items, bool), note=note)


def ratings_as_strengths(dataset: Dataset) -> Dataset:
    """Says that ratings are counts of plays or purchases, so a history's items weigh by them.

    Raises:
        DataError: there are no ratings, or one is not above 0.
    """
    if dataset.ratings is None:
        raise DataError("ratings_are: the data has no ratings; name a rating_column, or leave it out")
    if not (dataset.ratings > 0).all():
        raise DataError(
            f"ratings_are: a count is {dataset.ratings.min():g}; counts are above 0, so leave such rows out"
        )
    return replace(dataset, strengths=dataset.ratings.astype(np.float32))


def _keep(dataset: Dataset, rows: NDArray[np.bool_], *, items: NDArray[np.bool_], note: str) -> Dataset:
    """Keeps rows and items, and the users that have a row, and numbers them anew in their order."""
    users = np.bincount(dataset.users[rows], minlength=dataset.n_users) > 0
    new_user, new_item = np.cumsum(users) - 1, np.cumsum(items) - 1
    kept = np.flatnonzero(items)
    return Dataset(
        user_ids=dataset.user_ids[users],
        item_ids=dataset.item_ids[items],
        item_fields={name: tuple(texts[i] for i in kept) for name, texts in dataset.item_fields.items()},
        users=new_user[dataset.users[rows]],
        items=new_item[dataset.items[rows]],
        times=dataset.times[rows] if dataset.times is not None else None,
        ratings=dataset.ratings[rows] if dataset.ratings is not None else None,
        strengths=dataset.strengths[rows] if dataset.strengths is not None else None,
        notes=(*dataset.notes, note),
    )
