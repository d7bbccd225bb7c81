"""The tables once they are integer arrays: a data set, and what a split gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists, check_order, check_range, checked, set_fields
from lora_rec.errors import DataError


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
    strengths: NDArray[np.float32] | None = None
    """(E,), above 0: how often the user took the item (plays, purchases)."""
    notes: tuple[str, ...] = ()
    """What was put right when the tables were read."""

    def __post_init__(self) -> None:
        users = checked("dataset.users", self.users, dtype=np.int64, kinds="iu")
        n = len(users)
        items = checked("dataset.items", self.items, dtype=np.int64, kinds="iu", length=n)
        times, ratings = self.times, self.ratings
        if times is not None:
            times = checked("dataset.times", times, dtype=np.int64, kinds="iu", length=n)
        if ratings is not None:
            ratings = checked("dataset.ratings", ratings, dtype=np.float64, kinds="iuf", length=n)
        strengths = self.strengths
        if strengths is not None:
            strengths = checked("dataset.strengths", strengths, dtype=np.float32, kinds="iuf", length=n)
        for name in ("user_ids", "item_ids"):
            ids = checked(f"dataset.{name}", getattr(self, name), dtype=np.str_, kinds="U")
            if len(np.unique(ids)) != len(ids):
                raise DataError(f"dataset.{name}: an id is there twice; give each id once")
            set_fields(self, **{name: ids})
        check_range("dataset.users", users, n=len(self.user_ids))
        check_range("dataset.items", items, n=len(self.item_ids))
        check_order("dataset", users, times)
        fields = {name: tuple(texts) for name, texts in self.item_fields.items()}
        for name, texts in fields.items():
            _check_texts(f"dataset.item_fields[{name!r}]", texts, n=len(self.item_ids))
        set_fields(self, users=users, items=items, times=times, ratings=ratings, item_fields=fields)
        set_fields(self, strengths=strengths)

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
class Log:
    """Interactions, sorted like those of a `Dataset`."""

    users: NDArray[np.int64]
    """(E,)"""
    items: NDArray[np.int64]
    """(E,)"""
    times: NDArray[np.int64] | None = None
    """(E,), unix seconds."""
    strengths: NDArray[np.float32] | None = None
    """(E,), see `Dataset.strengths`."""
    ratings: NDArray[np.float64] | None = None
    """(E,), see `Dataset.ratings`."""

    def __post_init__(self) -> None:
        for name in ("items", "times", "strengths", "ratings"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.users):
                raise DataError(f"log.{name}: {len(values)} for {len(self.users)} users; give one each")
        check_order("log", self.users, self.times)

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: NDArray[np.generic]) -> Log:
        """Gives the chosen interactions, by a mask or by numbers that rise."""
        parts = (self.times, self.strengths, self.ratings)
        return Log(
            self.users[rows], self.items[rows], *(None if part is None else part[rows] for part in parts)
        )

    def then(self, later: Log) -> Log:
        """Joins another log, user by user, by time; at one time, or without times, it is the later."""

        def join(name: str) -> Any:
            parts = (getattr(self, name), getattr(later, name))
            return None if parts[0] is None else np.concatenate(parts)

        users, times = join("users"), join("times")
        # A random split's validation may lie before its training.
        order = np.lexsort((users,) if times is None else (times, users))
        rest = (times, join("strengths"), join("ratings"))
        return Log(users[order], join("items")[order], *(None if r is None else r[order] for r in rest))

    def histories(self, n_users: int) -> Lists:
        """Gives the items of users 0..n_users-1, oldest first; empty where a user has none."""
        return Lists.from_groups(self.users, self.items, n_groups=n_users, strengths=self.strengths)


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """M users to be ranked for: what is known of each, and what each took next."""

    users: NDArray[np.int64]
    """(M,), internal user ids."""
    histories: Lists
    """M histories, oldest first; all that a model may know of the user."""
    targets: Lists
    """M lists of items that the user took next; none is in the history."""
    times: NDArray[np.int64] | None = None
    """(M,), unix seconds of the first target: when each list was wanted."""

    def __post_init__(self) -> None:
        users = checked("evaluation.users", self.users, dtype=np.int64, kinds="iu")
        for name, lists in (("histories", self.histories), ("targets", self.targets)):
            if len(lists) != len(users):
                raise DataError(f"evaluation.{name}: {len(lists)} lists for {len(users)} users; give as many")
        if (self.targets.counts == 0).any():
            user = users[np.argmin(self.targets.counts)]
            raise DataError(f"evaluation.targets: user {user} has none; leave out users without a target")
        times = self.times
        if times is not None:
            times = checked("evaluation.times", times, dtype=np.int64, kinds="iu", length=len(users))
        set_fields(self, users=users, times=times)

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: NDArray[np.int64]) -> EvaluationSet:
        """Gives the chosen users in the order asked for."""
        times = None if self.times is None else self.times[rows]
        return EvaluationSet(self.users[rows], self.histories.take(rows), self.targets.take(rows), times)


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

    train_log: Log
    validation_log: Log
    """All interactions between training and test, also of users who are not evaluated."""
    validation: EvaluationSet
    test: EvaluationSet
    report: SplitReport
    n_users: int
    n_items: int

    def __post_init__(self) -> None:
        for part in ("train", "validation"):
            log: Log = getattr(self, f"{part}_log")
            check_range(f"split.{part}_log.users", log.users, n=self.n_users)
            check_range(f"split.{part}_log.items", log.items, n=self.n_items)

    @cached_property
    def refit_log(self) -> Log:
        """All that lies before the test, for a closed-form model that is refitted before it."""
        return self.train_log.then(self.validation_log)

    def train_histories(self) -> Lists:
        """Gives the training items of each user, oldest first; empty where a user has none."""
        return self.train_log.histories(self.n_users)

    def refit_histories(self) -> Lists:
        """Gives each user's training items and then the validation items."""
        return self.refit_log.histories(self.n_users)

    def item_counts(self, include_validation: bool = False) -> NDArray[np.int64]:
        """Gives (n_items,), the training interactions of each item; with those before the test if asked."""
        log = self.refit_log if include_validation else self.train_log
        return np.bincount(log.items, minlength=self.n_items).astype(np.int64)

    def user_counts(self, include_validation: bool = False) -> NDArray[np.int64]:
        """Gives (n_items,), how many users took each item, once or more; see `item_counts`."""
        log = self.refit_log if include_validation else self.train_log
        pairs = np.unique(log.users * self.n_items + log.items)
        return np.bincount(pairs % self.n_items, minlength=self.n_items).astype(np.int64)
