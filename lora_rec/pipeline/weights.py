"""Chooses how much the parts of the ranking head count, on scores that are computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import EvaluationSet
from lora_rec.pipeline.judge import best_lists, mean_ndcg
from lora_rec.rank.head import RankingHead
from lora_rec.rank.recent import RecentCounts
from lora_rec.rank.sequence import SequencePart

_Array = NDArray[np.float32]
Recent = Callable[[NDArray[np.int64]], _Array]
"""Gives the recent counts (B, N) of some users' moments."""
SEQUENCE_SHARES = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Spread of the sequence part's scores over that of the linear part's."""
RECENT_SHARES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.5)
"""Spread of the recent counts' logarithm over that of the scores so far."""
HALF_LIVES = (1.0, 3.0, 7.0, 14.0, 30.0, 90.0)
"""Days."""
SPREAD_USERS = 256


def recent_of(
    counts: RecentCounts | None, judged: EvaluationSet, *, half_life: float | None
) -> Recent | None:
    """Gives the recent counts of each user's moment, or None where there are none or they do not help."""
    times = judged.times
    if counts is None or times is None or half_life is None:
        return None
    return lambda rows: counts.at(times[rows], half_life=half_life)


def rank_judged(
    head: RankingHead, judged: EvaluationSet, *, recent: Recent | None = None
) -> NDArray[np.int64]:
    """Gives the lists (U, 10) of the judged users."""

    def score(rows: NDArray[np.int64]) -> Iterator[_Array]:
        yield head.scores(judged.histories.take(rows), recent=_at(recent, rows))

    return best_lists(score, len(judged), n_items=head.n_items, n_variants=1, exclude=judged.histories)[0]


def sequence_unit(sequence: SequencePart, judged: EvaluationSet) -> float:
    """Gives the weight with which the sequence part's scores spread as widely as the linear part's, by 1."""
    histories = judged.histories.take(np.arange(min(SPREAD_USERS, len(judged))))
    return 1 / max(float(sequence.scores(histories).std()), 1e-6)


def choose_sequence_weight(
    head: RankingHead, judged: EvaluationSet, *, recent: Recent | None = None
) -> RankingHead:
    """Chooses the weight of the sequence part beside the others."""
    sequence = head.sequence
    assert sequence is not None
    unit = sequence_unit(sequence, judged)
    others = replace(head, sequence=None)

    def variants(rows: NDArray[np.int64]) -> Iterator[_Array]:
        histories = judged.histories.take(rows)
        base, added = others.scores(histories, recent=_at(recent, rows)), sequence.scores(histories)
        for share in SEQUENCE_SHARES:
            yield base + np.float32(share * unit) * added

    lists = best_lists(
        variants,
        len(judged),
        n_items=head.n_items,
        n_variants=len(SEQUENCE_SHARES),
        exclude=judged.histories,
    )
    best = int(np.argmax([mean_ndcg(found, judged) for found in lists]))
    return replace(head, sequence_weight=SEQUENCE_SHARES[best] * unit)


def _at(recent: Recent | None, rows: NDArray[np.int64]) -> _Array | None:
    return None if recent is None else recent(rows)


def choose_recent(
    head: RankingHead, counts: RecentCounts | None, judged: EvaluationSet
) -> tuple[RankingHead, float | None]:
    """Chooses half-life and weight of the recent counts; gives no half-life where they do not help."""
    times = judged.times
    if counts is None or times is None:
        return head, None
    some = np.arange(min(SPREAD_USERS, len(judged)))
    spread = float(head.scores(judged.histories.take(some)).std())
    units = {}
    for half_life in HALF_LIVES:
        logs = np.log1p(counts.at(times[some], half_life=half_life))
        units[half_life] = spread / max(float((logs - logs.mean(axis=1, keepdims=True)).std()), 1e-6)
    variants = [(HALF_LIVES[0], 0.0), *product(HALF_LIVES, RECENT_SHARES)]

    def score(rows: NDArray[np.int64]) -> Iterator[_Array]:
        base = head.scores(judged.histories.take(rows))
        logs: _Array = base
        last = None
        for half_life, share in variants:
            if half_life != last:
                logs, last = np.log1p(counts.at(times[rows], half_life=half_life)), half_life
            yield base + np.float32(share * units[half_life]) * logs

    lists = best_lists(
        score, len(judged), n_items=head.n_items, n_variants=len(variants), exclude=judged.histories
    )
    half_life, share = variants[int(np.argmax([mean_ndcg(found, judged) for found in lists]))]
    if not share:
        return head, None
    return replace(head, recent_weight=share * units[half_life]), half_life
