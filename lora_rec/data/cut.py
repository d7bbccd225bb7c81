"""From the part that each interaction belongs to, to a `Split` and its report."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Dataset, EvaluationSet, Log, Split, SplitReport
from lora_rec.data.lists import Lists

_Ints = NDArray[np.int64]


def cut(dataset: Dataset, part: _Ints, *, name: str, dropped: dict[str, int], ordered: bool = True) -> Split:
    """Cuts a data set by the part of each interaction.

    Args:
        dataset: the interactions.
        part: (E,), 0 train, 1 validation, 2 test, and -1 for what is left out altogether.
        name: of the split and its settings, for the report.
        dropped: reason to count of what the caller left out.
        ordered: whether each user's parts follow one another; ties in time are counted only then.
    """
    kept: dict[str, dict[str, int]] = {}
    log = Log(dataset.users, dataset.items, dataset.times, dataset.strengths, dataset.ratings)
    train = part == 0
    kept["train"] = _count(dataset.users[train], dataset.items[train])
    reasons = dict(dropped)
    sets = []
    for number, label in ((1, "validation"), (2, "test")):
        evaluation, why = _evaluate(dataset, log, before=(part >= 0) & (part < number), during=part == number)
        reasons |= {f"{label} {reason}": count for reason, count in why.items()}
        kept[label] = _count(evaluation.users, evaluation.targets.values, n=len(evaluation.targets.values))
        sets.append(evaluation)
    seen = np.bincount(dataset.items[train], minlength=dataset.n_items) > 0
    report = SplitReport(
        name=name,
        kept=kept,
        dropped={reason: count for reason, count in reasons.items() if count},
        tied_test_targets=_count_ties(dataset, part, sets[1].users) if ordered else 0,
        unseen_test_targets=int((~seen[sets[1].targets.values]).sum()),
    )
    return Split(
        train_log=log.take(train),
        validation_log=log.take(part == 1),
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
    dataset: Dataset, log: Log, *, before: NDArray[np.bool_], during: NDArray[np.bool_]
) -> tuple[EvaluationSet, dict[str, int]]:
    """Makes one evaluation set, and counts what is left out of it and why.

    Args:
        dataset: counts users and items.
        log: the interactions.
        before: (E,), what is known.
        during: (E,), what is to be predicted.
    """
    histories = log.take(before).histories(dataset.n_users)
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
    times = None
    if log.times is not None:  # users are sorted and their times rise, so the first row is the earliest
        owners, first_rows = np.unique(users[target], return_index=True)
        times = log.times[during][target][first_rows[np.searchsorted(owners, chosen)]]
    return EvaluationSet(chosen, histories.take(chosen), targets.take(chosen), times), why


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
    rows = np.flatnonzero(part >= 0)
    part, owners, times = part[rows], dataset.users[rows], dataset.times[rows]
    start = np.flatnonzero((part[1:] == 2) & (part[:-1] < 2) & (owners[1:] == owners[:-1])) + 1
    tied = start[times[start] == times[start - 1]]
    return int(np.isin(owners[tied], users).sum())
