"""Chooses lists for relevance and diversity together, place by place, for many users at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lora_rec.errors import ArgumentError
from lora_rec.rank.chances import Chances
from lora_rec.rank.check import check_settings
from lora_rec.rank.pool import Objective, Pool
from lora_rec.rank.rules import KEEPS_ROOM, SCARCE_FIRST, QuotaCount, Quotas, explore_below
from lora_rec.rank.strategies import CEILINGS, OBJECTIVES, RelevanceOrder
from lora_rec.schema import CATEGORY_STRATEGIES, NOVEL, VECTOR_STRATEGIES

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float32]
_FLOATS_PER_STEP = 2**19
"""Users are taken together as long as what is read at every place stays in a core's cache (2 MB)."""
_FOREMOST = 4
"""Candidates for each place that are looked at first, where a strategy can tell if they settle the list."""
_TIE = np.float32(1e-6)
"""Scores that differ by less are equal: rounding would else choose among copies of one item."""


def rerank_lists(
    candidates: _Ints,
    scores: _Floats,
    item_vectors: NDArray[np.floating],
    *,
    k: int,
    diversity: float,
    strategy: str = "mmr",
    category_weights: _Floats | None = None,
    history_mix: _Floats | None = None,
    popularity: _Floats | None = None,
    chances: Chances | None = None,
    by_relevance: bool = False,
    quotas: Quotas | None = None,
    explore: float = 0.0,
    seed: int = 0,
) -> tuple[_Ints, _Floats]:
    """Chooses k of each user's candidates.

    A user's list does not depend on the other users. Of equal candidates the earlier one is taken.

    Args:
        candidates: (U, N), items by relevance, best first; -1 for empty slots at the end.
        scores: (U, N), their relevance; see `chances`.
        item_vectors: (n_items, D), of any length; their cosine says how alike two items are.
        k: list length.
        diversity: 0 keeps the relevance order exactly, 1 is the most diverse.
        strategy: one of `schema.STRATEGIES`; see `rank.strategies`.
        category_weights: (n_items, C), see `categories.Categories`; for `xquad` and `calibrated`.
        history_mix: (U, C), see `Categories.mix`; for the same.
        popularity: (n_items,), within 0..1, see `spaces.popularity_of`; for `novel`.
        chances: turns scores into the relevance that is traded off; without them each user's scores are
            scaled to 0..1 over the candidates.
        by_relevance: put the chosen items in the order of relevance, before any are drawn.
        quotas: hold in every list.
        explore: share of the places that is drawn from the candidates below the list, never the first.
        seed: of that draw.

    Returns:
        Items in list order and their relevance, (U, min(k, N)); -1 and -inf where a list ends early.

    Raises:
        ArgumentError: a number is out of range, shapes differ, the strategy is unknown or lacks categories or
            popularity, or a candidate's score, or a vector that is looked at, is not finite.
        DataError: quotas cannot be met.
    """
    check_settings(k=k, diversity=diversity, strategy=strategy, explore=explore, seed=seed)
    _check(candidates, scores, item_vectors)
    by_category = diversity > 0 and strategy in CATEGORY_STRATEGIES
    if by_category and (category_weights is None or history_mix is None):
        raise ArgumentError(f"strategy: {strategy!r} needs categories; give category_weights and history_mix")
    if diversity > 0 and strategy == NOVEL and popularity is None:
        raise ArgumentError(f"strategy: {strategy!r} needs how often items were taken; give popularity")
    if quotas is not None:
        quotas.check(candidates)
    places = np.full((len(candidates), min(k, candidates.shape[1])), -1, dtype=np.int64)
    if diversity == 0 and quotas is None:
        places[:] = np.where(candidates[:, : places.shape[1]] >= 0, np.arange(places.shape[1]), -1)
    elif places.size:
        nothing = np.zeros((len(item_vectors), 0), dtype=np.float32)
        vectors = item_vectors if diversity > 0 and strategy in VECTOR_STRATEGIES else nothing
        weights = category_weights if by_category and category_weights is not None else nothing
        mix = history_mix if by_category and history_mix is not None else np.zeros((len(candidates), 0), "f4")
        objective = OBJECTIVES[strategy] if diversity > 0 else RelevanceOrder
        width = vectors.shape[1] + weights.shape[1] + k
        width += candidates.shape[1] if strategy == "cover" else 0

        def gather(users: _Ints, n: int) -> Pool:
            return _pool(
                candidates[users],
                scores[users],
                vectors,
                weights,
                mix[users],
                popularity if diversity > 0 and strategy == NOVEL else None,
                chances if diversity > 0 else None,
                n=n,
                k=places.shape[1],
                diversity=diversity,
            )

        ceiling = CEILINGS.get(strategy) if diversity > 0 and quotas is None else None
        _fill(places, candidates, gather, objective, ceiling, quotas, floats=width)
        if by_relevance:
            # The candidates are in this order; as an unsigned number, -1 is the last.
            places = np.sort(places.astype(np.uint64), axis=1).astype(np.int64)
    places = explore_below(places, candidates, share=explore, seed=seed, quotas=quotas)
    empty = places < 0
    return (
        np.where(empty, -1, np.take_along_axis(candidates, places, axis=1)),
        np.where(empty, np.float32(-np.inf), np.take_along_axis(scores, places, axis=1)),
    )


def _check(candidates: _Ints, scores: _Floats, item_vectors: NDArray[np.floating]) -> None:
    if candidates.ndim != 2 or candidates.shape != scores.shape:
        raise ArgumentError(
            f"candidates: shape {candidates.shape}, scores {scores.shape}; give (U, N) for both"
        )
    if candidates.max(initial=-1) >= len(item_vectors):
        raise ArgumentError(
            f"candidates: item {candidates.max()}, but there are {len(item_vectors)} item_vectors"
        )
    if not np.isfinite(scores[candidates >= 0]).all():
        raise ArgumentError("scores: a candidate's score is not finite")


def _fill(
    places: _Ints,
    candidates: _Ints,
    gather: Callable[[_Ints, int], Pool],
    objective: Callable[[Pool], Objective],
    ceiling: Callable[[Pool], _Floats] | None,
    quotas: Quotas | None,
    *,
    floats: int,
) -> None:
    """Fills in which candidate is at which place, (U, K); -1 stays where a list ends early.

    Where a strategy knows a ceiling, the foremost candidates are looked at alone first, and the lists which
    these cannot settle are chosen among all.

    Args:
        places: (U, K), all -1.
        candidates: (U, N).
        gather: gives the first so many candidates of some users.
        objective: of the strategy.
        ceiling: of the strategy, if it has one.
        quotas: of every list.
        floats: what is read of a candidate at every place.
    """
    n, foremost = candidates.shape[1], _FOREMOST * places.shape[1]
    users = np.arange(len(candidates))
    for size in (n,) if ceiling is None or 2 * foremost > n else (foremost, n):
        step = max(1, _FLOATS_PER_STEP // (size * floats))
        unsettled = [users[:0]]
        for rows in (users[start : start + step] for start in range(0, len(users), step)):
            pool = gather(rows, size)
            if quotas is not None:
                places[rows] = _within_quotas(pool, objective, candidates[rows], quotas)
                continue
            floor = None if ceiling is None or size == n else ceiling(pool)
            places[rows], gains = _greedy(pool, objective(pool), None, floor=floor)
            if floor is not None:
                unsettled.append(rows[gains.min(axis=1) < floor])
        users = np.concatenate(unsettled)


def _pool(
    candidates: _Ints,
    scores: _Floats,
    item_vectors: NDArray[np.floating],
    category_weights: _Floats,
    mix: _Floats,
    popularity: _Floats | None,
    chances: Chances | None,
    *,
    n: int,
    k: int,
    diversity: float,
) -> Pool:
    """Gathers what the strategies look at in the first n candidates; checks vectors by their norms."""
    present = candidates >= 0
    missing = ~present[:, :n]
    places = np.maximum(candidates[:, :n], 0)
    relevance = _scaled(scores, present) if chances is None else chances.relevance(scores, present)
    # The items were checked, and clipping saves a second look at each.
    vectors = np.take(item_vectors, places, axis=0, mode="clip").astype(np.float32, copy=False)
    weights = np.take(category_weights, places, axis=0, mode="clip")
    if missing.any():
        vectors[missing] = 0
        weights[missing] = 0
    norms = np.sqrt(np.einsum("und,und->un", vectors, vectors))
    if not np.isfinite(norms).all():
        raise ArgumentError("item_vectors: a candidate's vector is not finite")
    vectors *= np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)[:, :, None]
    users = np.arange(len(candidates))
    known = np.zeros((len(users), 0), dtype=np.float32) if popularity is None else popularity[places]
    strength, compares = np.float32(diversity), chances is not None
    return Pool(relevance, present, k, strength, vectors, weights, mix, known, users, comparable=compares)


def _scaled(scores: _Floats, present: NDArray[np.bool_]) -> _Floats:
    """Gives (U, N), within 0..1 over what is present, and 0 for the rest; 1 where all are equal."""
    high = np.max(scores, axis=1, keepdims=True, initial=-np.inf, where=present)
    low = np.min(scores, axis=1, keepdims=True, initial=np.inf, where=present)
    spread = np.where(high > low, high - low, 1)
    return np.where(present, np.where(high > low, (scores - low) / spread, 1), 0).astype(np.float32)


def _within_quotas(
    pool: Pool, objective: Callable[[Pool], Objective], candidates: _Ints, quotas: Quotas
) -> _Ints:
    urgency = np.full(len(candidates), KEEPS_ROOM)
    found, lengths = np.full((len(candidates), pool.k), -1), np.full(len(candidates), -1)
    wanted = np.minimum(pool.present.sum(axis=1), pool.k)
    while True:
        count = QuotaCount(quotas, candidates, urgency=urgency)
        places, _ = _greedy(pool, objective(pool), count)
        # Items of two categories may fill one of them up before the other has enough, or keep all others out.
        failed = np.any(count.missing, axis=1)
        if (urgency[failed] == SCARCE_FIRST).any() and (
            lengths[failed & (urgency == SCARCE_FIRST)] < 0
        ).any():
            count.check()
        reached = np.where(failed, -1, (places >= 0).sum(axis=1))
        longer = reached > lengths
        found[longer], lengths[longer] = places[longer], reached[longer]
        again = (lengths < wanted) & (urgency < SCARCE_FIRST)
        if not again.any():
            return found
        urgency = urgency + again


def _greedy(
    pool: Pool, objective: Objective, quotas: QuotaCount | None, *, floor: _Floats | None = None
) -> tuple[_Ints, _Floats]:
    """Gives which candidate is at which place, and the score that it had there, both (U, K).

    Once all scores are below their floor (U,), the rest of the lists is of no use and left out.
    """
    places = np.empty((len(pool.users), pool.k), dtype=np.int64)
    gains = np.full((len(pool.users), pool.k), -np.inf, dtype=np.float32)
    # Added to the scores: taken and missing candidates are out of the question.
    barred = np.where(pool.present, 0, -np.inf).astype(np.float32)
    n_places = np.minimum(pool.present.sum(axis=1), pool.k)
    for place in range(pool.k):
        scores = objective.scores()
        scores += barred
        if quotas is not None:
            scores[quotas.blocked(places_left=n_places - place)] = -np.inf
        gains[:, place] = best = np.maximum.reduce(scores, axis=1)
        if floor is not None and (best < floor).all():
            break
        tied = best - _TIE * np.maximum(1, np.abs(best))
        places[:, place] = taken = (scores >= tied[:, None]).argmax(axis=1)
        barred[pool.users, taken] = -np.inf
        if quotas is not None:
            quotas.take(taken, best > -np.inf)
        if place + 1 < pool.k:
            objective.take(taken)
    places[np.isneginf(gains)] = -1  # nothing was left to take
    return places, gains
