"""Labels that the data brings: what users liked of what they took, and the items' own fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Dataset, Log
from lora_rec.data.lists import Lists
from lora_rec.data.separators import guess_separator
from lora_rec.errors import DataError, did_you_mean

MOST_LABELS = 200
"""Of a field, the most frequent: rarer ones say nothing that could be learned, and count as none."""
N_BANDS = 5


@dataclass(frozen=True, eq=False)
class ItemLabels:
    """One field of the items as labels."""

    name: str
    labels: tuple[str, ...]
    """(C,)"""
    classes: NDArray[np.int64] | None = None
    """(N,), the label of each item, -1 without one; None where an item may have several."""
    tags: NDArray[np.bool_] | None = None
    """(N, C), the labels of each item."""


def likes(
    rated: Dataset | Log, users: NDArray[np.int64], lists: Lists, *, n_items: int, liked_from: float
) -> NDArray[np.bool_]:
    """Says for items that users took whether they liked them, by the last rating that each gave.

    Args:
        rated: interactions with ratings, and none of a later part: a user may rate an item again.
        users: (U,), internal ids.
        lists: U lists of items that the user took.
        n_items: N.
        liked_from: lowest rating that counts as liking.

    Returns:
        Flat, one per entry of `lists.values`.
    """
    assert rated.ratings is not None  # callers ask first
    pairs = rated.users * np.int64(n_items) + rated.items
    order = np.argsort(pairs, kind="stable")
    wanted = np.repeat(users, lists.counts) * np.int64(n_items) + lists.values
    places = np.searchsorted(pairs[order], wanted, side="right") - 1
    return np.asarray(rated.ratings[order[places]] >= liked_from)


def check_likes(liked: NDArray[np.bool_], *, liked_from: float, what: str) -> None:
    """Refuses likes that are all alike.

    Raises:
        DataError: the ratings are on one side of `liked_from` alone; `what` says which.
    """
    if liked.all() or not liked.any():
        side = "at or above" if liked.all() else "below"
        raise DataError(
            f"objectives.liked_from: all {len(liked):,} ratings {what} are {side} {liked_from:g}, so likes"
            " tell nothing apart; choose another, or lower data.min_rating"
        )


def read_classes(values: Sequence[str], *, name: str) -> ItemLabels:
    """Reads one label for each item.

    >>> found = read_classes(["toys", "", "tea", "toys"], name="category")
    >>> found.labels, found.classes.tolist()
    (('toys', 'tea'), [0, -1, 1, 0])
    """
    labels = _most_frequent(Counter(value.strip() for value in values), name=name)
    places = {label: place for place, label in enumerate(labels)}
    return ItemLabels(name, labels, np.array([places.get(v.strip(), -1) for v in values], dtype=np.int64))


def read_tags(values: Sequence[str], *, name: str) -> ItemLabels:
    """Reads several labels for each item, parted by what seems to part them.

    >>> found = read_tags(["Drama, War", "War", ""], name="genres")
    >>> found.labels, found.tags.tolist()
    (('War', 'Drama'), [[True, True], [True, False], [False, False]])
    >>> read_tags(["Drama|War", "War"], name="genres").labels
    ('War', 'Drama')
    """
    separator = guess_separator(values) or ","
    parts = [{part.strip() for part in value.split(separator)} for value in values]
    labels = _most_frequent(Counter(part for found in parts for part in sorted(found)), name=name)
    places = {label: place for place, label in enumerate(labels)}
    tags = np.zeros((len(values), len(labels)), dtype=bool)
    for row, found in enumerate(parts):
        tags[row, [places[part] for part in found if part in places]] = True
    return ItemLabels(name, labels, tags=tags)


def read_bands(numbers: NDArray[np.float64], *, name: str) -> ItemLabels:
    """Cuts numbers into five bands with as many items each; NaN has none.

    Raises:
        DataError: fewer than two bands have an item.

    >>> read_bands(np.array([1.0, 9.0, np.nan, 5.0]), name="price").classes.tolist()
    [0, 4, -1, 2]
    """
    known = np.isfinite(numbers)
    cuts = np.arange(1, N_BANDS) / N_BANDS
    edges = np.unique(np.quantile(numbers[known], cuts)) if known.any() else np.empty(0)
    classes = np.where(known, np.searchsorted(edges, numbers, side="right"), -1)
    if len(np.unique(classes[known])) < 2:
        raise DataError(f"objectives.band_fields: {name!r} has no two different numbers; leave it out")
    bounds = [f"{edge:g}" for edge in edges]
    labels = tuple(f"{low} to {high}" for low, high in zip(["", *bounds], [*bounds, ""], strict=True))
    return ItemLabels(name, labels, classes.astype(np.int64))


def read_item_labels(
    fields: Mapping[str, Sequence[str]],
    names: Mapping[Literal["class_fields", "tag_fields", "band_fields"], Sequence[str]],
    *,
    mean_ratings: NDArray[np.float64] | None,
) -> list[ItemLabels]:
    """Reads the fields that an item's vector is to tell.

    Args:
        fields: of the item table.
        names: which of them, by kind.
        mean_ratings: (N,), NaN without one; for a band field `rating` that the table lacks.

    Raises:
        DataError: a field is missing, is no number, or tells nothing apart.
    """
    found = []
    for kind, wanted in names.items():
        for name in wanted:
            where = f"objectives.{kind}"
            if kind == "band_fields" and name == "rating" and name not in fields and mean_ratings is not None:
                found.append(read_bands(mean_ratings, name=name))
                continue
            if name not in fields:
                hint = did_you_mean(name, fields) or f"the items have: {', '.join(fields) or 'none'}"
                raise DataError(f"{where}: there is no field {name!r}; {hint}")
            if kind == "class_fields":
                found.append(read_classes(fields[name], name=name))
            elif kind == "tag_fields":
                found.append(read_tags(fields[name], name=name))
            else:
                found.append(read_bands(_numbers(fields[name], where=f"{where}: {name!r}"), name=name))
    return found


def mean_ratings(log: Log, *, n_items: int) -> _Floats:
    """Gives (N,), the mean rating of each item over interactions that have ratings; NaN without one."""
    assert log.ratings is not None  # callers ask first
    counts = np.bincount(log.items, minlength=n_items)
    sums = np.bincount(log.items, weights=log.ratings, minlength=n_items)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


_Floats = NDArray[np.float64]


def _most_frequent(counts: Counter[str], *, name: str) -> tuple[str, ...]:
    """Gives the labels, most frequent first."""
    counts.pop("", None)
    labels = tuple(label for label, _ in counts.most_common(MOST_LABELS))
    if len(labels) < 2:
        raise DataError(
            f"objectives: field {name!r} has {len(labels)} labels, which tell nothing; leave it out"
        )
    return labels


def _numbers(values: Sequence[str], *, where: str) -> _Floats:
    numbers = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if value.strip():
            try:
                numbers[row] = float(value)
            except ValueError:
                raise DataError(f"{where}: {value!r} is no number; name it in class_fields") from None
    return numbers
