"""Which interactions may be learned from, and which are to be predicted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Dataset, EvaluationSet, Lists, Split, SplitReport
from lora_rec.errors import DataError

_Ints = NDArray[np.int64]


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
    return _make_split(
        dataset, part, name=f"leave_last_out(min_interactions={min_interactions})", dropped=few
    )


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
    return _make_split(dataset, part, name=name, dropped={})


def split_at_quantiles(dataset: Dataset, *, validation: float = 0.8, test: float = 0.9) -> Split:
    """Splits at the moments by which a share of all interactions has happened; see `split_at_time`.

    Args:
        dataset: with times.
        validation: share of the interactions before validation, in (0, 1); less where times are tied.
        test: share before the test, above `validation`.

    Raises:
        DataError: shares out of order, there are no times, or a part would be empty.
    """
    times = np.sort(_times(dataset, "split_at_quantiles"))
    if not 0 < validation < test < 1:
        raise DataError(
            f"split_at_quantiles: validation={validation} and test={test}; give 0 < validation < test < 1"
        )
    if not times.size:
        raise DataError("split_at_quantiles: the data has no interactions; give some")
    start, end = (int(times[int(share * len(times))]) for share in (validation, test))
    if start == end or start == times[0]:
        raise DataError(
            f"split_at_quantiles: a part is empty, because many interactions have the time {start}; "
            "choose other shares, or leave_last_out"
        )
    return split_at_time(dataset, validation_from=start, test_from=end)


def _times(dataset: Dataset, where: str) -> _Ints:
    if dataset.times is None:
        raise DataError(f"{where}: the data has no times; name a time_column, or use leave_last_out")
    return dataset.times


def _make_split(dataset: Dataset, part: _Ints, *, name: str, dropped: dict[str, int]) -> Split:
    """Cuts a data set by the part of each interaction: 0 train, 1 validation, 2 test; part grows per user."""
    kept: dict[str, dict[str, int]] = {}
    train = part == 0
    kept["train"] = _count(dataset.users[train], dataset.items[train])
    reasons = dict(dropped)
    sets = []
    for number, label in ((1, "validation"), (2, "test")):
        evaluation, why = _evaluate(dataset, before=part < number, during=part == number)
        reasons |= {f"{label} {reason}": count for reason, count in why.items()}
        kept[label] = _count(evaluation.users, evaluation.targets.values, n=len(evaluation.targets.values))
        sets.append(evaluation)
    seen = np.bincount(dataset.items[train], minlength=dataset.n_items) > 0
    report = SplitReport(
        name=name,
        kept=kept,
        dropped={reason: count for reason, count in reasons.items() if count},
        tied_test_targets=_count_ties(dataset, part, sets[1].users),
        unseen_test_targets=int((~seen[sets[1].targets.values]).sum()),
    )
    return Split(
        train_users=dataset.users[train],
        train_items=dataset.items[train],
        train_times=dataset.times[train] if dataset.times is not None else None,
        validation_users=dataset.users[part == 1],
        validation_items=dataset.items[part == 1],
        validation=sets[0],
        test=sets[1],
        report=report,
        n_users=dataset.n_users,
        n_items=dataset.n_items,
    )


def _count(users: _Ints, items: _Ints, n: int | None = None) -> dict[str, int]:
    return {
        "users": len(_distinct(users)),
        "items": len(_distinct(items)),
        "interactions": len(items) if n is None else n,
    }


def _evaluate(
    dataset: Dataset, *, before: NDArray[np.bool_], during: NDArray[np.bool_]
) -> tuple[EvaluationSet, dict[str, int]]:
    """Makes one evaluation set, and counts what is left out of it and why.

    Args:
        dataset: the interactions.
        before: (E,), what is known.
        during: (E,), what is to be predicted.
    """
    histories = Lists.from_groups(dataset.users[before], dataset.items[before], n_groups=dataset.n_users)
    users, items = dataset.users[during], dataset.items[during]
    known = histories.counts[users] > 0
    # One number per pair of user and item; n_users * n_items stays far below 2**63.
    pairs = users * dataset.n_items + items
    distinct, first_row, place = np.unique(pairs, return_index=True, return_inverse=True)
    first = np.zeros(len(pairs), bool)
    first[first_row] = True
    seen = _is_among(distinct, dataset.users[before] * dataset.n_items + dataset.items[before])[place]
    target = known & ~seen & first
    chosen = _distinct(users[target])
    targets = Lists.from_groups(users[target], items[target], n_groups=dataset.n_users)
    why = {
        "users without a history": len(_distinct(users[~known])),
        "targets that are already in the history": int((known & seen).sum()),
        "targets that repeat another": int((known & ~seen & ~first).sum()),
        "users without a target left": len(_distinct(users[known])) - len(chosen),
    }
    return EvaluationSet(chosen, histories.take(chosen), targets.take(chosen)), why


def _is_among(distinct: _Ints, values: _Ints) -> NDArray[np.bool_]:
    """Says for each of the sorted distinct numbers whether it is among the values; does not sort those."""
    found = np.zeros(len(distinct), bool)
    if len(distinct):
        place = np.minimum(np.searchsorted(distinct, values), len(distinct) - 1)
        found[place[distinct[place] == values]] = True
    return found


def _distinct(ids: _Ints) -> _Ints:
    return np.flatnonzero(np.bincount(ids))


def _count_ties(dataset: Dataset, part: _Ints, users: _Ints) -> int:
    """Counts evaluated users whose first test interaction has the time of the one before it."""
    if dataset.times is None:
        return 0
    start = np.flatnonzero((part[1:] == 2) & (part[:-1] < 2) & (dataset.users[1:] == dataset.users[:-1])) + 1
    tied = start[dataset.times[start] == dataset.times[start - 1]]
    return int(np.isin(dataset.users[tied], users).sum())
