"""Which interactions may be learned from, and which are to be predicted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.cut import cut
from lora_rec.data.dataset import Dataset, Split
from lora_rec.errors import DataError

_Ints = NDArray[np.int64]
DAY = 86_400


def leave_last_out(dataset: Dataset, *, min_interactions: int = 3, ordered: bool = False) -> Split:
    """Holds out each user's last item for the test and the one before for validation.

    Other users' interactions of the same time stay in training: this split asks what comes next, not what the
    future holds; for that, see `split_at_time`. A user whose target is in the history is left out of that
    evaluation, since what was seen is not recommended; the target is held out all the same.

    Args:
        dataset: with times, unless `ordered`.
        min_interactions: at least 3; users with fewer are only learned from.
        ordered: says that the rows of a data set without times are in order; not read where there are times.

    Raises:
        DataError: there are no times, or no user has enough interactions.
    """
    if dataset.times is None and not ordered:
        raise DataError(
            "leave_last_out: the data has no times; name a time_column, or pass ordered=True if its rows are "
            "in the order of time"
        )
    if min_interactions < 3:
        raise DataError(f"leave_last_out.min_interactions: {min_interactions}; give at least 3, one per part")
    counts = np.bincount(dataset.users, minlength=dataset.n_users)
    enough = counts >= min_interactions
    if not enough.any():
        raise DataError(
            f"leave_last_out: no user has {min_interactions} interactions (most: {counts.max(initial=0)}); "
            "lower min_interactions or give more data"
        )
    from_end = np.cumsum(counts)[dataset.users] - np.arange(dataset.n_interactions)  # 1 for a user's last
    part = np.where(enough[dataset.users], np.clip(3 - from_end, 0, 2), 0)  # 0 train, 1 validation, 2 test
    few = {f"users with fewer than {min_interactions} interactions: training only": int((~enough).sum())}
    return cut(dataset, part, name=f"leave_last_out(min_interactions={min_interactions})", dropped=few)


def split_at_time(dataset: Dataset, *, validation_from: int, test_from: int) -> Split:
    """Learns from what came before a moment, and predicts what came after; one moment for all users.

    An interaction at `validation_from` or `test_from` belongs to the later part. Nothing of a later part is
    in training, in a history or in `Split.item_counts`. A user's targets are all items of the part, once
    each, less those in the history; users without a history or a target are left out of that evaluation.

    Args:
        dataset: with times.
        validation_from: unix seconds; training ends before it.
        test_from: unix seconds; validation ends before it.

    Raises:
        DataError: there are no times, or a part would be empty.
    """
    times = _times(dataset, "split_at_time")
    if validation_from >= test_from:
        raise DataError(
            f"split_at_time.validation_from: {validation_from} is not before test_from {test_from}; "
            "give an earlier moment"
        )
    part = (times >= validation_from).astype(np.int64) + (times >= test_from)
    for number, name in enumerate(("training", "validation", "test")):
        if not (part == number).any():
            span = f"{times.min()} to {times.max()}" if times.size else "empty"
            raise DataError(
                f"split_at_time: no interaction for {name} with validation_from={validation_from} and "
                f"test_from={test_from} (times: {span}); choose other moments"
            )
    name = f"split_at_time(validation_from={validation_from}, test_from={test_from})"
    return cut(dataset, part, name=name, dropped={})


def split_at_quantiles(dataset: Dataset, *, validation: float = 0.8, test: float = 0.9) -> Split:
    """Splits at the moments by which a share of all interactions has happened; see `split_at_time`.

    Args:
        dataset: with times.
        validation: share of the interactions before validation, in (0, 1); less where times are tied.
        test: share before the test, above `validation`.

    Raises:
        DataError: shares out of order, there are no times, or a part would be empty.
    """
    start, end = find_quantiles(_times(dataset, "split_at_quantiles"), validation=validation, test=test)
    return split_at_time(dataset, validation_from=start, test_from=end)


def split_at_last_day(dataset: Dataset) -> Split:
    """Predicts the last day of the log, in UTC, and chooses on the day before; see `split_at_time`.

    Raises:
        DataError: there are no times, or a part would be empty.
    """
    start, end = find_last_day(_times(dataset, "split_at_last_day"))
    return split_at_time(dataset, validation_from=start, test_from=end)


def find_quantiles(times: _Ints, *, validation: float, test: float) -> tuple[int, int]:
    """Gives the moments by which two shares of all that happened lie in the past; see `split_at_quantiles`.

    >>> find_quantiles(np.array([5, 9, 7, 6]), validation=0.5, test=0.75)
    (7, 9)
    """
    if not 0 < validation < test < 1:
        raise DataError(
            f"split_at_quantiles: validation={validation} and test={test}; give 0 < validation < test < 1"
        )
    if not times.size:
        raise DataError("split_at_quantiles: the data has no interactions; give some")
    ordered = np.sort(times)
    start, end = (int(ordered[int(share * len(ordered))]) for share in (validation, test))
    if start == end or start == ordered[0]:
        raise DataError(
            f"split_at_quantiles: a part is empty, because many interactions have the time {start}; "
            "choose other shares (data.validation_quantile, data.test_quantile), or another data.split"
        )
    return start, end


def find_last_day(times: _Ints) -> tuple[int, int]:
    """Gives the beginnings of the last two days on which anything happened, in UTC.

    >>> find_last_day(np.array([3 * 86_400 + 5, 86_400, 7]))
    (86400, 259200)

    Raises:
        DataError: fewer than three days, or nothing at all.
    """
    if not times.size:
        raise DataError("split_at_last_day: the data has no interactions; give some")
    days = np.unique(times // DAY)
    if len(days) < 3:
        raise DataError(
            f"split_at_last_day: all lies on {len(days)} days, and each of the last two is a part of its own;"
            " give a longer log, or split at quantiles of the times (data.split=time)"
        )
    return int(days[-2]) * DAY, int(days[-1]) * DAY


def split_randomly(dataset: Dataset, *, shares: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> Split:
    """Splits each user's interactions at random by three shares, for data without times.

    This is the random ratio split, grouped by user, that RecBole's benchmarks use: each user's n interactions
    are shuffled and cut; validation and test get `int(share * n)` each and training the rest. A part whose
    share of n is below one takes one interaction from training, the test first, as long as training keeps
    one. So 50 interactions at 8:1:1 give 40, 5 and 5, and 3 give 1, 1 and 1. The history of a test user is
    training and validation together, in the data set's order; all other items are ranked. A target that is in
    the history (the pair is there twice) is left out.

    Args:
        dataset: times are not used.
        shares: of training, validation and test; positive, with sum 1.
        seed: same seed, same split.

    Raises:
        DataError: shares that are no shares, or a part without any interaction.
    """
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise DataError(f"split_randomly.shares: {tuple(shares)}; give three positive shares with sum 1")
    n = np.bincount(dataset.users, minlength=dataset.n_users)
    sizes = {number: (shares[number] * n).astype(np.int64) for number in (1, 2)}
    left = n - sizes[1] - sizes[2]
    for number in (2, 1):
        short = (n > 0) & (sizes[number] == 0) & (left > 1)
        sizes[number] += short
        left -= short
    draw = np.random.default_rng(seed).random(dataset.n_interactions)
    order = np.lexsort((draw, dataset.users))
    users = dataset.users  # sorted, so the same before and after the shuffle
    place = np.arange(len(users)) - (np.cumsum(n) - n)[users]
    part = np.empty(len(users), np.int64)
    part[order] = (place >= left[users]).astype(np.int64) + (place >= (left + sizes[1])[users])
    for number, name in enumerate(("training", "validation", "test")):
        if not (part == number).any():
            most = n.max(initial=0)
            raise DataError(
                f"split_randomly: no interaction for {name} (a user has {most} at most); give more data"
            )
    written = ", ".join(f"{share:g}" for share in shares)
    name = f"split_randomly(shares=({written}), seed={seed})"
    return cut(dataset, part, name=name, dropped={}, ordered=False)


def leave_last_basket_out(dataset: Dataset) -> Split:
    """Holds out each user's last basket of new items for the test and the one before for validation.

    Only the first purchase of each item by a user is kept; a basket is what then has one user and one time.
    So every target is new to its user, and a visit with repeat purchases alone is no basket. A user with one
    basket is only learned from; a user with two has no history for validation but is tested. Filter rare
    users and items first, with `keep_frequent`.

    Args:
        dataset: with times.

    Raises:
        DataError: there are no times, or no user has two baskets.
    """
    times = _times(dataset, "leave_last_basket_out")
    pairs = dataset.users * dataset.n_items + dataset.items
    first = np.zeros(len(pairs), bool)
    first[np.unique(pairs, return_index=True)[1]] = True  # the first row of a pair is its earliest
    rows = np.flatnonzero(first)
    users, moments = dataset.users[rows], times[rows]
    opens = np.ones(len(rows), bool)
    opens[1:] = (np.diff(users) != 0) | (np.diff(moments) != 0)
    basket = np.cumsum(opens)  # numbered over all users, and their users are sorted
    n_baskets = np.bincount(users[opens], minlength=dataset.n_users)
    if n_baskets.max(initial=0) < 2:
        raise DataError("leave_last_basket_out: no user has two baskets of new items; give more data")
    from_end = np.cumsum(n_baskets)[users] - basket  # 0 for a user's last
    part = np.full(len(pairs), -1, np.int64)
    part[rows] = np.where(n_baskets[users] > 1, np.clip(2 - from_end, 0, 2), 0)
    dropped = {
        "interactions that repeat an earlier purchase": int((~first).sum()),
        "users with one basket: training only": int((n_baskets == 1).sum()),
    }
    return cut(dataset, part, name="leave_last_basket_out()", dropped=dropped)


def _times(dataset: Dataset, where: str) -> _Ints:
    if dataset.times is None:
        raise DataError(f"{where}: the data has no times; name a time_column, or use another split")
    return dataset.times
