"""Lists that users were shown, and what they clicked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import DataError


@dataclass(frozen=True, eq=False)
class Impressions:
    """I lists of candidates, each shown to one user at one time.

    Raises:
        DataError: the lengths do not fit together.
    """

    users: NDArray[np.int64]
    """(I,), internal user ids."""
    times: NDArray[np.int64]
    """(I,), unix seconds."""
    histories: Lists
    """I lists of what the user had clicked before, oldest first; may be empty."""
    candidates: Lists
    """I lists of the items shown."""
    clicks: NDArray[np.bool_]
    """Flat, one per entry of `candidates.values`: whether it was clicked."""

    def __post_init__(self) -> None:
        n = len(self.users)
        for name in ("times", "histories", "candidates"):
            if len(getattr(self, name)) != n:
                found = len(getattr(self, name))
                raise DataError(f"impressions.{name}: {found} for {n} impressions; give one each")
        shown = len(self.candidates.values)
        if len(self.clicks) != shown or self.clicks.dtype != np.bool_:
            raise DataError(
                f"impressions.clicks: {len(self.clicks)} of type {self.clicks.dtype} for {shown} candidates; "
                "give one bool each"
            )

    def __len__(self) -> int:
        return len(self.users)

    @property
    def tells(self) -> NDArray[np.bool_]:
        """Which lists (I,) can be learned from or judged by: they have a click, and an item without."""
        owners = np.repeat(np.arange(len(self)), self.candidates.counts)
        n_clicks = np.bincount(owners, weights=self.clicks, minlength=len(self))
        return (n_clicks > 0) & (n_clicks < self.candidates.counts)

    def take(self, indices: ArrayLike) -> Impressions:
        """Gives the chosen impressions in the order asked for."""
        chosen = np.asarray(indices, np.int64)
        places = Lists(np.arange(len(self.clicks)), self.candidates.offsets).take(chosen)
        return Impressions(
            self.users[chosen],
            self.times[chosen],
            self.histories.take(chosen),
            Lists(self.candidates.values[places.values], places.offsets),
            self.clicks[places.values],
        )


def join_impressions(parts: Sequence[Impressions]) -> Impressions:
    """Gives the impressions of all parts, one part after the other; there must be a part."""
    histories, candidates = (
        Lists.from_arrays(array for part in parts for array in getattr(part, name))
        for name in ("histories", "candidates")
    )
    users, times, clicks = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("users", "times", "clicks")
    )
    return Impressions(users, times, histories, candidates, clicks)


@dataclass(frozen=True, eq=False)
class ImpressionSplit:
    """Impressions before validation, of validation, and of the test."""

    train: Impressions
    validation: Impressions
    test: Impressions

    def __str__(self) -> str:
        parts = ("train", "validation", "test")
        return ", ".join(f"{part}: {len(getattr(self, part)):,} impressions" for part in parts)


def split_impressions(
    impressions: Impressions, *, test_from: int, validation_from: int | None = None
) -> ImpressionSplit:
    """Cuts impressions at two moments; one at a moment belongs to the later part.

    Args:
        impressions: in any order; each part keeps it.
        test_from: unix seconds; 1573689600 (2019-11-14, UTC) for the training part of MIND.
        validation_from: unix seconds; the 24 hours before `test_from` when left out.

    Raises:
        DataError: a part would be empty.

    >>> lists = Lists.from_arrays([[0], [1], [0]])
    >>> shown = Impressions(np.array([0, 1, 0]), np.array([5, 7, 9]), lists, lists, np.ones(3, bool))
    >>> print(split_impressions(shown, validation_from=6, test_from=9))
    train: 1 impressions, validation: 1 impressions, test: 1 impressions
    """
    start = test_from - 86_400 if validation_from is None else validation_from
    part = (impressions.times >= start).astype(np.int64) + (impressions.times >= test_from)
    rows = [np.flatnonzero(part == number) for number in range(3)]
    for name, chosen in zip(("train", "validation", "test"), rows, strict=True):
        if not chosen.size:
            times = impressions.times
            span = f"{times.min()} to {times.max()}" if times.size else "there are none"
            raise DataError(
                f"split_impressions: no impression for {name} with validation_from={start} and "
                f"test_from={test_from} (times: {span}); choose other moments"
            )
    return ImpressionSplit(*(impressions.take(chosen) for chosen in rows))
