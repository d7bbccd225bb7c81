"""What a system gives, how its lists are cut from scores, and how they are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from quality_search import Axes, Settings, climb_with_free
from quality_sets import ImpressionSet, Part, Prepared, RankingSet

from lora_rec.data import Impressions, Lists
from lora_rec.metrics import coverage_at_k, ild_at_k, impression_auc, ndcg_at_k, recall_at_k

K = 10
TIE_SEED = 0
BLOCK = 256
Scorer = Callable[[int, int], NDArray[np.float32]]
"""Gives the scores of the evaluation's users start..stop-1 over all items, (stop - start, N)."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a system says for the test, and how it was chosen.

    `results` of a ranking set: the key `all` has lists (U, K) out of the whole catalogue, -1 for an empty
    slot; of a cold set also `withheld`, lists out of the withheld items alone. Of an impression set: the key
    `scores` has one number per shown candidate, flat. `lists_of` makes the lists from scores.
    """

    results: dict[str, NDArray[np.generic]]
    settings: Settings = field(default_factory=dict)
    validation: float = float("nan")
    trials: int = 0


@dataclass(frozen=True)
class System:
    """One line of the table: `run(prepared, seed, trials)` chooses on validation and answers for the test."""

    run: Callable[[Prepared, int, int], Answer]
    fits: Callable[[Prepared], str]
    """Gives "" where the system can run, or the reason why not."""
    axes: Axes = field(default_factory=dict)
    """Part of the name under which finished pieces are kept, so that a change of the grid runs anew."""
    seeded: bool = False
    """Whether it draws random numbers; one that does not runs once."""


def lists_of(part: Part, scorer: Scorer, *, n_items: int) -> dict[str, NDArray[np.int64]]:
    """Gives the best K items of each user of a part, out of all and out of the withheld ones.

    Items of the history are left out. Items of one score stand in a random order that is the same for every
    system: ids often go from popular to rare, so their order would tell something.
    """
    pools = {"all": np.arange(n_items)} | ({} if part.withheld is None else {"withheld": part.withheld})
    shuffled = {
        name: np.random.default_rng(TIE_SEED).permutation(pool).astype(np.int64)
        for name, pool in pools.items()
    }
    histories, n_users = part.evaluation.histories, len(part.evaluation)
    lists = {name: np.full((n_users, K), -1, dtype=np.int64) for name in pools}
    for start in range(0, n_users, BLOCK):
        stop = min(start + BLOCK, n_users)
        scores = np.array(scorer(start, stop), dtype=np.float32)
        if scores.shape != (stop - start, n_items) or not np.isfinite(scores).all():
            raise ValueError(f"scores: shape {scores.shape}, or a number is not finite; check the system")
        had = histories.take(np.arange(start, stop))
        scores[np.repeat(np.arange(stop - start), had.counts), had.values] = -np.inf
        for name, pool in shuffled.items():
            lists[name][start:stop] = pool_top(scores[:, pool], pool)
    return lists


def pool_top(scores: NDArray[np.float32], pool: NDArray[np.int64]) -> NDArray[np.int64]:
    """Gives the best K columns of each row as items of the pool, best first, -1 where a score is -inf."""
    k = min(K, len(pool))
    found = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    values = np.take_along_axis(scores, found, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    items = pool[np.take_along_axis(found, order, axis=1)]
    items[np.isneginf(np.take_along_axis(values, order, axis=1))] = -1
    return np.pad(items, ((0, 0), (0, K - k)), constant_values=-1)


def ranking_values(part: Part, scorer: Scorer, *, n_items: int) -> NDArray[np.float64]:
    """Gives each user's `ndcg@10`, by which settings are chosen; of a cold set, among the withheld items."""
    lists = lists_of(part, scorer, n_items=n_items)
    view = "all" if part.withheld is None else "withheld"
    return ndcg_at_k(lists[view], list(part.evaluation.targets), k=K)


def choose_and_rank(
    prepared: RankingSet,
    build: Callable[[Part, Settings], Scorer],
    axes: Axes,
    start: Settings,
    trials: int,
    *,
    free: Axes | None = None,
    most_parts: int | None = None,
) -> Answer:
    """Chooses on validation, learns again from all that lies before the test, and ranks for the test.

    Settings in `free` need no new fit, so every trial takes the best of them; ours does so, too. Of the parts
    for validation `most_parts` are looked at, all when left out.
    """

    def evaluate(settings: Settings) -> float:
        values = [
            ranking_values(part, build(part, settings), n_items=prepared.n_items)
            for part in prepared.validations[:most_parts]
        ]
        return float(np.concatenate(values).mean())

    found = climb_with_free(evaluate, axes, start, trials=trials, free=free or {})
    lists = lists_of(prepared.test, build(prepared.test, found.settings), n_items=prepared.n_items)
    return Answer(dict(lists), found.settings, found.score, found.trials)


def values_of(prepared: Prepared, answer: Answer) -> tuple[dict[str, NDArray[np.float64]], dict[str, float]]:
    """Gives the metrics of an answer: those with a value per user or impression, and those without."""
    if isinstance(prepared, ImpressionSet):
        return impression_values(prepared.impressions.test, answer.results["scores"]), {}
    everything, targets = answer.results["all"], prepared.test.evaluation.targets
    lists, n_ranked, users = everything, prepared.n_items, {}
    if prepared.test.withheld is not None:
        is_new = np.isin(np.arange(prepared.n_items), prepared.test.withheld)
        targets, known = targets.keep(is_new), targets.keep(~is_new)
        lists, n_ranked = answer.results["withheld"], len(prepared.test.withheld)
        for metric, function in (("ndcg", ndcg_at_k), ("recall", recall_at_k)):
            users[f"{metric}@{K} among all"] = _of_users(function, everything, targets)
            users[f"{metric}@{K} of known items"] = _of_users(function, everything, known)
    users = {
        f"ndcg@{K}": _of_users(ndcg_at_k, lists, targets),
        f"recall@{K}": _of_users(recall_at_k, lists, targets),
        f"ild@{K}": ild_at_k(lists, prepared.item_vectors, k=K),
    } | users
    coverage = coverage_at_k(lists, k=K, n_items=prepared.n_items) * prepared.n_items / n_ranked
    return users, {f"coverage@{K}": coverage}


def _of_users(
    metric: Callable[..., NDArray[np.float64]], lists: NDArray[np.generic], targets: Lists
) -> NDArray[np.float64]:
    """Gives a metric of each user, NaN for one without a target."""
    rows, values = np.flatnonzero(targets.counts), np.full(len(targets), np.nan)
    values[rows] = metric(lists[rows], list(targets.take(rows)), k=K)
    return values


def impression_values(shown: Impressions, scores: NDArray[np.generic]) -> dict[str, NDArray[np.float64]]:
    """Gives AUC and `ndcg@10` of each impression, NaN where all or none of its candidates were clicked.

    Equal scores count half in AUC, and stand in a random order, the same for every system, in `ndcg@10`.
    """
    numbers = np.asarray(scores, dtype=np.float64)
    if numbers.shape != shown.clicks.shape or not np.isfinite(numbers).all():
        raise ValueError(f"scores: {numbers.shape}, or not finite; give one number per shown candidate")
    draws = np.random.default_rng(TIE_SEED).random(len(numbers))
    offsets = shown.candidates.offsets
    auc, ndcg = impression_auc(numbers, shown.clicks, offsets), np.full(len(shown), np.nan)
    discounts = 1 / np.log2(np.arange(2, K + 2))
    for number in range(len(shown)):
        rows = slice(offsets[number], offsets[number + 1])
        given, clicked = numbers[rows], shown.clicks[rows]
        if clicked.all() or not clicked.any():
            continue
        hits = clicked[np.lexsort((draws[rows], -given))][:K]
        ndcg[number] = hits @ discounts[: len(hits)] / discounts[: min(K, clicked.sum())].sum()
    return {"auc": auc, f"ndcg@{K}": ndcg}


def choose_and_score(
    prepared: ImpressionSet,
    build: Callable[[Sequence[Impressions], Impressions, Settings], NDArray[np.float64]],
    axes: Axes,
    start: Settings,
    trials: int,
    *,
    free: Axes | None = None,
) -> Answer:
    """Chooses by AUC on validation, learns again from all earlier impressions, and scores the test's.

    `free` is that of `choose_and_rank`.
    """
    parts = prepared.impressions

    def evaluate(settings: Settings) -> float:
        scores = build([parts.train], parts.validation, settings)
        return float(np.nanmean(impression_values(parts.validation, scores)["auc"]))

    found = climb_with_free(evaluate, axes, start, trials=trials, free=free or {})
    scores = build([parts.train, parts.validation], parts.test, found.settings)
    return Answer({"scores": scores}, found.settings, found.score, found.trials)
