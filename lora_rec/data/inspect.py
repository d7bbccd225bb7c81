"""What is in a data set, in numbers, and what of it usually goes wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.build import count_repeats
from lora_rec.data.dataset import Dataset, SplitReport
from lora_rec.data.validate import DataProblem

LARGE_SHARE = 0.2  # of the interactions on one item
MANY = 0.1  # a share of users, items or interactions that a table of means would show
DAY = 86_400
EARLIEST = 631_152_000  # 1990
FIRST_DAY, LAST_DAY = 19_900_101, 21_001_231  # days as YYYYMMDD; as seconds they are of August 1970
LOUD_SHARE, LOUD_TIMES, LOUD_NOBODY = 0.05, 50, 10
"""Of a loud user: the share of the interactions, and times the middling user's; under nobody's id, fewer."""
NOBODY = frozenset("null none nan n/a na - 0 -1 guest anonymous anon unknown undefined".split())


@dataclass(frozen=True)
class Quantiles:
    """How counts are spread."""

    low: float
    quarter: float
    middle: float
    three_quarters: float
    high: float
    mean: float

    @classmethod
    def of(cls, counts: NDArray[np.int64]) -> Quantiles:
        """Takes the quantiles of (n,) counts, n > 0."""
        low, quarter, middle, three_quarters, high = np.quantile(counts, [0, 0.25, 0.5, 0.75, 1]).tolist()
        return cls(low, quarter, middle, three_quarters, high, float(counts.mean()))

    def __str__(self) -> str:
        quartiles = f"{self.quarter:g} / {self.middle:g} / {self.three_quarters:g} quartiles"
        return f"{self.low:g} min, {quartiles}, {self.high:g} max, {self.mean:.1f} mean"


@dataclass(frozen=True)
class Statistics:
    """The size and the skew of a data set that has interactions."""

    n_users: int
    n_items: int
    n_interactions: int
    per_user: Quantiles
    """Interactions of a user."""
    per_item: Quantiles
    """Interactions of an item of the catalogue."""
    n_cold: int
    """Items without an interaction."""
    top_item: str
    """Id of the most popular item."""
    top_share: float
    """Its share of the interactions."""
    times: tuple[int, int] | None
    """First and last unix second."""
    missing: dict[str, float]
    """Field to the share of the items without it."""

    @property
    def density(self) -> float:
        """Interactions over all pairs of a user and an item."""
        return self.n_interactions / (self.n_users * self.n_items)

    def __str__(self) -> str:
        lines = [
            f"{self.n_users:,} users, {self.n_items:,} items, {self.n_interactions:,} interactions,"
            f" density {self.density:.3%}",
            f"interactions per user: {self.per_user}",
            f"interactions per item: {self.per_item}; {self.n_cold:,} items have none",
            f"most popular item: {self.top_item} with {self.top_share:.1%} of the interactions",
        ]
        if self.times is not None:
            first, last = self.times
            lines.append(f"times: {_date(first)} to {_date(last)}, {(last - first) / DAY:,.0f} days")
        lines += [f"{name}: missing for {share:.1%} of the items" for name, share in self.missing.items()]
        return "\n".join(lines)


def summarize(dataset: Dataset) -> Statistics:
    """Counts what a data set with at least one interaction holds."""
    per_user = np.bincount(dataset.users, minlength=dataset.n_users)
    per_item = np.bincount(dataset.items, minlength=dataset.n_items)
    top = int(per_item.argmax())
    times = dataset.times
    return Statistics(
        n_users=dataset.n_users,
        n_items=dataset.n_items,
        n_interactions=dataset.n_interactions,
        per_user=Quantiles.of(per_user),
        per_item=Quantiles.of(per_item),
        n_cold=int((per_item == 0).sum()),
        top_item=str(dataset.item_ids[top]),
        top_share=float(per_item[top] / dataset.n_interactions),
        times=None if times is None else (int(times.min()), int(times.max())),
        missing={name: texts.count("") / dataset.n_items for name, texts in dataset.item_fields.items()},
    )


def find_warnings(
    dataset: Dataset, *, min_rating: float | None = None, now: float | None = None
) -> list[DataProblem]:
    """Finds what a run accepts in the interactions but what makes its results doubtful.

    Args:
        dataset: with at least one interaction.
        min_rating: what the ratings were filtered by.
        now: unix seconds; the clock's when left out.
    """
    found = _popularity_warnings(dataset)
    if dataset.times is None:
        what = "there are none, so the rows are taken to be in order"
        fix = "make sure that they are (not sorted by item or rating), or name a time column"
        found.append(DataProblem("times", what, fix))
    else:
        found += _time_warnings(dataset.users, dataset.times, now=time.time() if now is None else now)
    if dataset.ratings is not None and min_rating is None:
        found += _rating_warnings(dataset.ratings)
    return found


def _popularity_warnings(dataset: Dataset) -> list[DataProblem]:
    """Finds an item that is nearly everything, rows that are copies, and users with one interaction."""
    found = []
    counts = np.bincount(dataset.items)
    share = counts.max() / dataset.n_interactions
    if share >= LARGE_SHARE:
        what = (
            f"{dataset.item_ids[counts.argmax()]} is {share:.0%} of them, so every model will look good on it"
        )
        fix = "leave it out if it is no choice (a bag, a login), or read the columns for rare items"
        found.append(DataProblem("interactions", what, fix, int(counts.max())))
    found += _loud_user_warnings(dataset)
    repeats = count_repeats(dataset.users, dataset.items, dataset.times)
    if repeats:
        what = "a user and an item" if dataset.times is None else "a user, an item and a time"
        found.append(
            DataProblem("interactions", f"{repeats:,} repeat {what}", "drop them if they are copies", repeats)
        )
    plain = {user.strip().removesuffix(".0") for user in dataset.user_ids.tolist()}
    alike = dataset.n_users - len(plain)
    if alike:
        what = f"{alike:,} ids differ from another by spaces or a final .0 alone, and count as other users"
        found.append(DataProblem("users", what, "write each user's id in one way", alike))
    per_user = np.bincount(dataset.users, minlength=dataset.n_users)
    single = int((per_user == 1).sum())
    if single > MANY * dataset.n_users:
        what = f"{single:,} of {dataset.n_users:,} have one interaction, so nothing can be predicted for them"
        fix = "gather more, or judge the result as that of the other users"
        found.append(DataProblem("users", what, fix, single))
    return found


def _loud_user_warnings(dataset: Dataset) -> list[DataProblem]:
    """Finds a user who is many: all who did not log in, under one id."""
    counts = np.bincount(dataset.users, minlength=dataset.n_users)
    middling = np.median(counts)
    for user in np.argsort(-counts)[:3].tolist():
        name, share = str(dataset.user_ids[user]), counts[user] / dataset.n_interactions
        is_nobody = name.strip().lower() in NOBODY and counts[user] >= LOUD_NOBODY * middling
        if is_nobody or (share >= LOUD_SHARE and counts[user] >= LOUD_TIMES * middling):
            what = (
                f"{name!r} has {counts[user]:,} interactions ({share:.0%}), the middling user {middling:g}:"
                " pairs of items count as often as they stand in one history, so nearly all are this user's"
            )
            fix = "drop those rows if they are many people under one id"
            return [DataProblem("users", what, fix, int(counts[user]))]
    return []


def _with_dashes(day: np.int64) -> str:
    digits = str(day)
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"


def find_split_warnings(report: SplitReport) -> list[DataProblem]:
    """Finds a test that leaves many users out, whose last interaction is one with an item that they had."""
    left_out = report.dropped.get("test users without a target left", 0)
    n_users = left_out + report.kept["test"]["users"]
    if left_out <= MANY * n_users:
        return []
    what = (
        f"{left_out:,} of {n_users:,} users are not judged, since what they took last they had before: a"
        " purchase after a view, an item again"
    )
    fix = "keep one kind of event, or the first of each user and item"
    return [DataProblem("test", what, fix, left_out)]


def _time_warnings(users: NDArray[np.int64], times: NDArray[np.int64], *, now: float) -> list[DataProblem]:
    """Finds times that cannot order anything, or that are no dates of ours."""
    found = []

    def warn(what: str, fix: str, count: int) -> None:
        found.append(DataProblem("times", what, fix, count))

    n = len(times)
    if n > 1 and times.min() == times.max():
        fix = "give the real times, or time_column none if the rows are in order"
        warn(f"all are {_date(times[0])}, so the order is that of the rows", fix, n)
        return found
    early, late = int((times < EARLIEST).sum()), int((times > now + DAY).sum())
    if early:
        fix = "check the column and its unit: seconds since 1970"
        if FIRST_DAY <= times.min() and times.max() <= LAST_DAY:
            fix = f"they look like days written as one number: for {times[0]} write {_with_dashes(times[0])}"
        warn(f"{early:,} are before 1990 (first: {_date(times.min())})", fix, early)
    if late:
        fix = "check the column and its unit, or drop those rows"
        warn(f"{late:,} are in the future (last: {_date(times.max())})", fix, late)
    midnight = int((times % DAY == 0).sum())
    if n >= 10 and midnight > 0.9 * n:
        fix = "give the hour as well, or split: time, which holds out whole days"
        warn(f"{midnight / n:.0%} are midnight, so the order within a day is that of the rows", fix, midnight)
    last = np.flatnonzero(np.append(users[1:] != users[:-1], True))
    last = last[(last > 0) & (users[last] == users[last - 1])]
    tied = int((times[last] == times[last - 1]).sum())
    if tied > MANY * len(last):
        what = f"{tied:,} of {len(last):,} users have one time for their last two items, so the rows decide"
        fix = "give finer times, or split: time"
        warn(what, fix, tied)
    return found


def _rating_warnings(ratings: NDArray[np.float64]) -> list[DataProblem]:
    """Finds ratings of which a part says that the item was not liked."""
    least = suggest_min_rating(ratings)
    if least is None:
        return []
    below = int((ratings < least).sum())
    what = f"{below / len(ratings):.0%} are below {least:g} and count as likes all the same"
    return [DataProblem("ratings", what, f"set data.min_rating={least:g}, or keep them on purpose", below)]


def suggest_min_rating(ratings: NDArray[np.float64]) -> float | None:
    """Gives the lowest rating that says "liked": the first above three fifths of the scale.

    None where fewer than one rating in twenty lies in the lower half, so that there is little to leave out.

    >>> suggest_min_rating(np.array([1.0, 2, 3, 4, 5])), suggest_min_rating(np.array([5.0, 5, 5]))
    (4.0, None)
    """
    values = np.unique(ratings)
    middle = (values[0] + values[-1]) / 2
    if len(values) < 2 or (ratings < middle).mean() < 0.05:
        return None
    return float(values[values >= values[0] + 0.6 * (values[-1] - values[0])][0])


def _date(seconds: int | np.int64) -> str:
    """Writes unix seconds as a day; as the number where that is no year of ours."""
    far = abs(int(seconds)) >= 1e11
    return str(seconds) if far else str(np.datetime64(int(seconds), "s").astype("datetime64[D]"))
