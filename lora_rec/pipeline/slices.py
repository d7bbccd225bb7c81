"""Where a system is good: relevance for parts of the test users, by what they took next and how much before.

A part by items counts only the targets among them, for the users who have one; bundles travel, so parts of
fewer than `LEAST_USERS` users are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Split
from lora_rec.data.lists import Lists
from lora_rec.metrics import PairedDifference, ndcg_at_k, paired_difference, sign_flip_test
from lora_rec.pipeline.ranking import RARE_COUNT
from lora_rec.rank.categories import Categories
from lora_rec.schema import OF_CATEGORY

_Ints = NDArray[np.int64]
HEAD_SHARE = 0.5
"""The most taken items that make up this share of all interactions are the head."""
LEAST_USERS = 5
MOST_CATEGORIES = 20
N_LENGTHS = 4
POPULARITY, LENGTH, CATEGORY = "popularity of the target", "length of the history", OF_CATEGORY


@dataclass(frozen=True)
class Slice:
    """A part of the test users."""

    group: str
    """What the users are parted by: `POPULARITY`, `LENGTH` or `CATEGORY`."""
    name: str
    n_users: int
    ndcg: dict[str, float]
    """System to its mean over these users."""
    difference: PairedDifference | None
    """Of the first system from the second, see `slice_users`; None where one of them was not compared."""
    p_value: float | None = None
    """Of its sign-flip test, for this part alone: with few users an interval is too narrow by itself."""

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves out 0 and the test rejects at 5 %, as `PairedTest.is_sure`."""
        if self.difference is None or self.p_value is None:
            return False
        return (self.difference.low > 0 or self.difference.high < 0) and self.p_value < 0.05

    def to_json(self) -> dict[str, Any]:
        """Gives plain dictionaries."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Slice:
        """Reads `to_json`'s result."""
        difference = tree["difference"]
        return cls(**{**tree, "difference": None if difference is None else PairedDifference(**difference)})


def in_groups(slices: Iterable[Slice]) -> tuple[Slice, ...]:
    """Leaves out a part that is alone in its group: it is everybody, and says nothing new."""
    parts = tuple(slices)
    sizes = Counter(part.group for part in parts)
    return tuple(part for part in parts if sizes[part.group] > 1)


def slice_users(
    lists: Mapping[str, _Ints],
    split: Split,
    *,
    k: int,
    categories: Categories | None = None,
    pair: tuple[str, str] = ("ranking_head", "ease"),
) -> list[Slice]:
    """Judges every system on parts of the test users.

    Args:
        lists: system to items (U, K) for the test users.
        split: of the run.
        k: list length.
        categories: of the items; without them there is no part by category.
        pair: two systems whose difference gets an interval.
    """
    slices = []
    for group, name, rows, targets in _parts(split, categories):
        if len(rows) < LEAST_USERS:
            continue
        wanted = list(targets)
        values = {system: ndcg_at_k(found[rows], wanted, k=k) for system, found in lists.items()}
        difference, p_value = None, None
        if all(system in values for system in pair):
            first, second = (values[system] for system in pair)
            difference, p_value = paired_difference(first, second), sign_flip_test(first, second)
        means = {system: float(of_users.mean()) for system, of_users in values.items()}
        slices.append(Slice(group, name, len(rows), means, difference, p_value))
    return slices


_Part = tuple[str, str, _Ints, Lists]
"""Group, name, users as rows of the test, and the targets of each that count."""


def _parts(split: Split, categories: Categories | None) -> Iterator[_Part]:
    yield from _by_popularity(split)
    yield from _by_length(split)
    if categories is not None:
        yield from _by_category(split, categories)


def _by_popularity(split: Split) -> Iterator[_Part]:
    counts = split.item_counts(include_validation=True)
    rare, head = counts <= RARE_COUNT, head_items(counts)
    named, least = {f"rare: {RARE_COUNT} interactions or fewer": rare}, RARE_COUNT + 1
    if head.any():
        most = counts[head].min()
        between = f"{least:,} to {most - 1:,}" if least < most - 1 else f"{least:,}"
        named[f"between: {between}"] = ~rare & ~head
        named[f"popular: {most:,} or more"] = head
    else:
        named[f"between: {least:,} or more"] = ~rare
    for name, mask in named.items():
        yield POPULARITY, name, *_keep(split.test.targets, mask)


def _by_length(split: Split) -> Iterator[_Part]:
    lengths = split.test.histories.counts
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, N_LENGTHS + 1)[1:-1], method="lower"))
    part = np.searchsorted(edges, lengths, side="left")
    for number in np.unique(part):
        rows = np.flatnonzero(part == number)
        low, high = lengths[rows].min(), lengths[rows].max()
        name = f"{low:,} to {high:,} items" if low < high else f"{low:,} items"
        yield LENGTH, name, rows, split.test.targets.take(rows)


def _by_category(split: Split, categories: Categories) -> Iterator[_Part]:
    """Yields the categories that most users took an item of next, the largest first."""
    parts = [_keep(split.test.targets, column > 0) for column in categories.weights.T]
    sizes = np.array([len(rows) for rows, _ in parts], dtype=np.int64)
    for column in np.argsort(-sizes, kind="stable")[:MOST_CATEGORIES]:
        yield CATEGORY, categories.names[column], *parts[column]


def _keep(targets: Lists, mask: NDArray[np.bool_]) -> tuple[_Ints, Lists]:
    """Gives the users who have a target among some items, and these targets."""
    kept = targets.keep(mask)
    rows = np.flatnonzero(kept.counts)
    return rows, kept.take(rows)


def head_items(counts: _Ints) -> NDArray[np.bool_]:
    """Gives which items are the head: the most taken ones, with `HEAD_SHARE` of all interactions.

    A rare item never is one, and of items that were taken equally often all are or none.

    >>> head_items(np.array([1, 6, 3, 2])).tolist()
    [False, True, False, False]
    """
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    foremost = counts[order[before < HEAD_SHARE * counts.sum()]]
    return (counts >= foremost.min(initial=np.iinfo(np.int64).max)) & (counts > RARE_COUNT)
