"""The tables once they are integer arrays: a data set, ragged lists, and what a split gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_rec.errors import DataError


def _checked(where: str, values: Any, *, dtype: type, kinds: str, length: int | None = None) -> NDArray[Any]:
    """Gives `values` as a flat array of `dtype`, or says what it is instead."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{where}: an array of shape {array.shape}; give one dimension")
    if array.size and array.dtype.kind not in kinds:
        raise DataError(f"{where}: values of type {array.dtype}; give {np.dtype(dtype).name}")
    if length is not None and len(array) != length:
        raise DataError(f"{where}: {len(array)} values where {length} are needed; give one per entry")
    return array.astype(dtype, copy=False)


def _check_range(where: str, values: NDArray[np.int64], *, n: int) -> None:
    """Refuses an internal id outside 0..n-1."""
    if values.size and (values.min() < 0 or values.max() >= n):
        bad = values[(values < 0) | (values >= n)][0]
        raise DataError(f"{where}: id {bad} is outside 0..{n - 1}; use the internal ids of this data set")


def _check_order(where: str, users: NDArray[np.int64], times: NDArray[np.int64] | None) -> None:
    """Refuses interactions that are not sorted by user, then time."""
    step = np.diff(users)
    wrong = step < 0
    if times is not None:
        wrong |= (step == 0) & (np.diff(times) < 0)
    if wrong.any():
        row = int(np.argmax(wrong)) + 1
        raise DataError(f"{where}: row {row} comes before row {row - 1}; sort by user, then time")


def _set(instance: object, **values: Any) -> None:
    """Stores checked values in a frozen dataclass that is being built."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


@dataclass(frozen=True, eq=False)
class Lists:
    """Many integer arrays of different lengths in one.

    >>> lists = Lists.from_arrays([[3, 1], [], [2]])
    >>> len(lists), lists[0].tolist(), lists.counts.tolist()
    (3, [3, 1], [2, 0, 1])
    """

    values: NDArray[np.int64]
    """All arrays, one after the other."""
    offsets: NDArray[np.int64]
    """(n + 1,); array i is `values[offsets[i]:offsets[i + 1]]`."""

    def __post_init__(self) -> None:
        values = _checked("lists.values", self.values, dtype=np.int64, kinds="iu")
        offsets = _checked("lists.offsets", self.offsets, dtype=np.int64, kinds="iu")
        if not offsets.size or offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
            raise DataError(
                f"lists.offsets: {offsets[:5].tolist()}... do not cut {len(values)} values into arrays; "
                f"start at 0, never decrease, and end at {len(values)}"
            )
        _set(self, values=values, offsets=offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"list {index} of {len(self)}")
        index %= len(self)
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return (self[i] for i in range(len(self)))

    @property
    def counts(self) -> NDArray[np.int64]:
        """(n,), the length of each array."""
        return np.diff(self.offsets)

    def take(self, indices: ArrayLike) -> Lists:
        """Gives the chosen arrays in the order asked for.

        >>> [a.tolist() for a in Lists.from_arrays([[3, 1], [], [2]]).take([2, 0])]
        [[2], [3, 1]]
        """
        chosen = _checked("lists.take", indices, dtype=np.int64, kinds="iu")
        _check_range("lists.take", chosen, n=len(self))
        offsets = np.concatenate([[0], np.cumsum(self.counts[chosen])]).astype(np.int64)
        shift = np.repeat(self.offsets[chosen] - offsets[:-1], np.diff(offsets))
        return Lists(self.values[np.arange(offsets[-1]) + shift], offsets)

    @classmethod
    def from_arrays(cls, arrays: Iterable[ArrayLike]) -> Lists:
        """Joins the arrays, in their order."""
        parts = [_checked("lists", a, dtype=np.int64, kinds="iu") for a in arrays]
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
        return cls(np.concatenate([np.empty(0, np.int64), *parts]), offsets)

    @classmethod
    def from_groups(cls, groups: NDArray[np.int64], values: NDArray[np.int64], *, n_groups: int) -> Lists:
        """Cuts values whose group numbers never decrease; a group without values is an empty array.

        >>> Lists.from_groups(np.array([0, 0, 2]), np.array([5, 6, 7]), n_groups=3).offsets.tolist()
        [0, 2, 2, 3]
        """
        _check_range("lists.groups", groups, n=n_groups)
        _check_order("lists.groups", groups, None)
        counts = np.bincount(groups, minlength=n_groups)
        return cls(values, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions and the catalogue, with internal ids 0..n-1; E interactions.

    Interactions are sorted by user, then time, then their order in the source. Every item of the item table
    is in the catalogue, also one that nobody took.

    Raises:
        DataError: lengths, types or ids do not fit together, ids repeat, or interactions are not sorted.
    """

    user_ids: NDArray[np.str_]
    """(n_users,), the external id of each user."""
    item_ids: NDArray[np.str_]
    """(n_items,), the external id of each item."""
    item_fields: dict[str, tuple[str, ...]]
    """Field name (title, genres, ...) to one text per item, "" where it is missing."""
    users: NDArray[np.int64]
    """(E,), internal user ids."""
    items: NDArray[np.int64]
    """(E,), internal item ids."""
    times: NDArray[np.int64] | None = None
    """(E,), unix seconds."""
    ratings: NDArray[np.float64] | None = None
    """(E,)"""
    notes: tuple[str, ...] = ()
    """What was put right when the tables were read."""

    def __post_init__(self) -> None:
        users = _checked("dataset.users", self.users, dtype=np.int64, kinds="iu")
        n = len(users)
        items = _checked("dataset.items", self.items, dtype=np.int64, kinds="iu", length=n)
        times, ratings = self.times, self.ratings
        if times is not None:
            times = _checked("dataset.times", times, dtype=np.int64, kinds="iu", length=n)
        if ratings is not None:
            ratings = _checked("dataset.ratings", ratings, dtype=np.float64, kinds="iuf", length=n)
        for name in ("user_ids", "item_ids"):
            ids = _checked(f"dataset.{name}", getattr(self, name), dtype=np.str_, kinds="U")
            if len(np.unique(ids)) != len(ids):
                raise DataError(f"dataset.{name}: an id is there twice; give each id once")
            _set(self, **{name: ids})
        _check_range("dataset.users", users, n=len(self.user_ids))
        _check_range("dataset.items", items, n=len(self.item_ids))
        _check_order("dataset", users, times)
        fields = {name: tuple(texts) for name, texts in self.item_fields.items()}
        for name, texts in fields.items():
            _check_texts(f"dataset.item_fields[{name!r}]", texts, n=len(self.item_ids))
        _set(self, users=users, items=items, times=times, ratings=ratings, item_fields=fields)

    @property
    def n_users(self) -> int:
        """How many users there are."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """How many items the catalogue has."""
        return len(self.item_ids)

    @property
    def n_interactions(self) -> int:
        """How many interactions there are."""
        return len(self.users)


def _check_texts(where: str, texts: Sequence[str], *, n: int) -> None:
    """Refuses a field without one string per item."""
    if len(texts) != n:
        raise DataError(f"{where}: {len(texts)} texts for {n} items; give one each, '' if missing")
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"{where}: {text!r} is no string; give strings")


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """M users to be ranked for: what is known of each, and what each took next."""

    users: NDArray[np.int64]
    """(M,), internal user ids."""
    histories: Lists
    """M histories, oldest first; all that a model may know of the user."""
    targets: Lists
    """M lists of items that the user took next; none is in the history."""

    def __post_init__(self) -> None:
        users = _checked("evaluation.users", self.users, dtype=np.int64, kinds="iu")
        for name, lists in (("histories", self.histories), ("targets", self.targets)):
            if len(lists) != len(users):
                raise DataError(f"evaluation.{name}: {len(lists)} lists for {len(users)} users; give as many")
        if (self.targets.counts == 0).any():
            user = users[np.argmin(self.targets.counts)]
            raise DataError(f"evaluation.targets: user {user} has none; leave out users without a target")
        _set(self, users=users)

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class SplitReport:
    """What a split kept and what it left out, with the reasons."""

    name: str
    """The split and its settings."""
    kept: dict[str, dict[str, int]]
    """Part (train, validation, test) to how many users, items and interactions (targets) it has."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason to how many users or interactions it left out; only those above 0."""
    tied_test_targets: int = 0
    """Test targets with the time of the interaction before them: there the order is the source's."""
    unseen_test_targets: int = 0
    """Test targets whose item has no interaction in training."""

    def __str__(self) -> str:
        lines = [self.name]
        for part, counts in self.kept.items():
            lines.append(f"  {part}: " + ", ".join(f"{count:,} {what}" for what, count in counts.items()))
        lines += [f"  left out: {count:,} {reason}" for reason, count in self.dropped.items()]
        if self.tied_test_targets:
            lines.append(f"  {self.tied_test_targets:,} test targets are tied in time with the item before")
        if self.unseen_test_targets:
            lines.append(f"  {self.unseen_test_targets:,} test targets have no interaction in training")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Split:
    """What may be learned from, and the two sets to evaluate on."""

    train_users: NDArray[np.int64]
    """(T,), sorted like a `Dataset`."""
    train_items: NDArray[np.int64]
    """(T,)"""
    train_times: NDArray[np.int64] | None
    """(T,), unix seconds."""
    validation_users: NDArray[np.int64]
    """(V,), sorted; all interactions between training and test, also of users who are not evaluated."""
    validation_items: NDArray[np.int64]
    """(V,)"""
    validation: EvaluationSet
    test: EvaluationSet
    report: SplitReport
    n_users: int
    n_items: int

    def __post_init__(self) -> None:
        for part, times in (("train", self.train_times), ("validation", None)):
            users, items = getattr(self, f"{part}_users"), getattr(self, f"{part}_items")
            if len(users) != len(items):
                raise DataError(f"split.{part}_items: {len(items)} for {len(users)} users; give one each")
            _check_range(f"split.{part}_users", users, n=self.n_users)
            _check_range(f"split.{part}_items", items, n=self.n_items)
            _check_order(f"split.{part}", users, times)

    def train_histories(self) -> Lists:
        """Gives the training items of users 0..n_users-1, oldest first; empty where a user has none."""
        return Lists.from_groups(self.train_users, self.train_items, n_groups=self.n_users)

    def refit_histories(self) -> Lists:
        """Gives all items from before the test, for a closed-form model that is refitted before it.

        These are the training items of users 0..n_users-1 and then their validation items.
        """
        users = np.concatenate([self.train_users, self.validation_users])
        items = np.concatenate([self.train_items, self.validation_items])
        order = np.argsort(users, kind="stable")
        return Lists.from_groups(users[order], items[order], n_groups=self.n_users)

    def item_counts(self, include_validation: bool = False) -> NDArray[np.int64]:
        """Gives (n_items,), the training interactions of each item; with those before the test if asked."""
        counts = np.bincount(self.train_items, minlength=self.n_items)
        if include_validation:
            counts = counts + np.bincount(self.validation_items, minlength=self.n_items)
        return counts.astype(np.int64)
