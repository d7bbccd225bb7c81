"""Measures, on validation users, what each strategy of re-ranking pays in relevance for diversity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lora_rec.data.dataset import EvaluationSet, Split
from lora_rec.metrics import coverage_at_k, ild_at_k, ndcg_at_k, novelty_at_k, recall_at_k
from lora_rec.pipeline.head import FittedHead
from lora_rec.pipeline.judge import draw_users
from lora_rec.pipeline.spaces import Rulers
from lora_rec.rank.categories import Categories
from lora_rec.rank.chances import Chances, fit_chances
from lora_rec.rank.rules import count_candidates
from lora_rec.rank.spaces import ItemSpaces
from lora_rec.rank.tradeoff import PLAIN, Front, Point
from lora_rec.recipe import RankingSection
from lora_rec.schema import CATEGORY_STRATEGIES, STRATEGIES, VECTOR_STRATEGIES

_Array = NDArray[np.float32]
_Ints = NDArray[np.int64]
STRENGTHS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
LEVELS = (0.98, 0.95, 0.9)
"""Shares of the plain list's `ndcg` near which a strategy is looked at more closely."""
N_HALVINGS = 3
LEAST_KEPT = 0.5
"""Stronger settings than one that keeps less are not looked at."""
Measure = Callable[[_Ints], dict[str, float]]


def measure_front(
    fitted: FittedHead,
    split: Split,
    spaces: ItemSpaces,
    rulers: Rulers,
    *,
    k: int,
    n_candidates: int,
    categories: Categories | None = None,
    strategies: Sequence[str] = STRATEGIES,
    show_progress: bool = False,
) -> Front:
    """Sweeps strategies, spaces and strengths over the head that has seen training interactions alone.

    Args:
        fitted: its `before_refit` ranks for the validation users, at most `judge.JUDGED_USERS` of them.
        split: of the fit.
        spaces: what re-ranking looks at, of training interactions alone.
        rulers: what its lists are judged by.
        k: list length.
        n_candidates: best items by relevance that re-ranking chooses from, see `count_candidates`.
        categories: of the items; without them the strategies that look at them are left out.
        strategies: of `schema.STRATEGIES`.
        show_progress: a bar.
    """
    assert fitted.before_refit is not None  # `fit_on_texts` gives one
    judged = draw_users(split.validation)
    candidates, scores = fitted.before_refit.top_k(judged, k=count_candidates(n_candidates, k=k))
    measure = measure_of(judged, rulers, split.user_counts(), n_users=split.n_users, k=k)
    return sweep(
        spaces,
        candidates,
        scores,
        measure,
        k=k,
        chances=fit_chances(candidates, scores, judged.targets),
        category_weights=None if categories is None else categories.weights,
        history_mix=None if categories is None else categories.mix(judged.histories),
        strategies=strategies,
        show_progress=show_progress,
    )


def measure_of(judged: EvaluationSet, rulers: Rulers, counts: _Ints, *, n_users: int, k: int) -> Measure:
    """Gives what measures lists (U, k) of these users: relevance by their targets, diversity by the rulers.

    Args:
        judged: U users.
        rulers: see `Rulers`; `ild` is by its factors, `ild_text` by its texts.
        counts: (N,), users of each item, for `novelty`.
        n_users: that these are of.
        k: list length.
    """
    targets = list(judged.targets)

    def measure(lists: _Ints) -> dict[str, float]:
        means = {
            "ndcg": ndcg_at_k(lists, targets, k=k),
            "recall": recall_at_k(lists, targets, k=k),
            "ild": ild_at_k(lists, rulers.factors, k=k),
            "ild_text": ild_at_k(lists, rulers.text, k=k),
            "novelty": novelty_at_k(lists, counts, k=k, n_users=n_users),
        }
        values = {name: float(np.nanmean(of_users)) for name, of_users in means.items()}
        return values | {"coverage": coverage_at_k(lists, k=k, n_items=len(counts))}

    return measure


def sweep(
    spaces: ItemSpaces,
    candidates: _Ints,
    scores: _Array,
    measure: Measure,
    *,
    k: int,
    chances: Chances | None = None,
    category_weights: _Array | None = None,
    history_mix: _Array | None = None,
    strategies: Sequence[str] = STRATEGIES,
    show_progress: bool = False,
) -> Front:
    """Measures the relevance order and every strategy in every space, from weak to strong.

    Each is looked at in coarse steps, and then, by halving, more closely where it crosses one of `LEVELS`.

    Args:
        spaces: what re-ranking looks at.
        candidates: (U, N), best first; -1 where a list ends early.
        scores: (U, N).
        measure: of lists (U, k).
        k: list length.
        chances: see `rerank_lists`.
        category_weights: (N, C), see `rerank_lists`; without them no strategy that looks at them is measured.
        history_mix: (U, C), for the same.
        strategies: of `schema.STRATEGIES`.
        show_progress: a bar.
    """
    front = Front(
        k=k,
        n_users=len(candidates),
        n_candidates=candidates.shape[1],
        plain=Point(PLAIN, "", 0.0, measure(candidates[:, :k])),
        points=(),
        chances=chances,
    )
    curves = [
        (strategy, space)
        for strategy in strategies
        if category_weights is not None or strategy not in CATEGORY_STRATEGIES
        for space in (spaces.names if strategy in VECTOR_STRATEGIES else spaces.names[:1])
    ]
    points: list[Point] = []
    for strategy, space in tqdm(curves, desc="trade-off", disable=not show_progress):

        def point(diversity: float, strategy: str = strategy, space: str = space) -> Point:
            setting = Point(strategy, space, diversity, {})
            lists = lists_by(
                spaces,
                candidates,
                scores,
                setting,
                k=k,
                chances=chances,
                category_weights=category_weights,
                history_mix=history_mix,
            )
            return replace(setting, values=measure(lists))

        points += _curve(front, point)
    return replace(front, points=tuple(points))


def _curve(front: Front, point: Callable[[float], Point]) -> list[Point]:
    """Gives the points of one strategy in one space, in order of strength."""
    found = [replace(front.plain, diversity=0.0)]
    for diversity in STRENGTHS:
        found.append(point(diversity))
        if front.kept(found[-1]) < LEAST_KEPT:
            break
    for level in LEVELS:
        for _ in range(N_HALVINGS):
            kept = [front.kept(p) for p in found]
            place = next((i for i in range(1, len(found)) if kept[i - 1] >= level > kept[i]), None)
            if place is None:
                break
            found.insert(place, point((found[place - 1].diversity + found[place].diversity) / 2))
    return found[1:]


def settings_of(front: Front, section: RankingSection) -> tuple[Point, Point]:
    """Gives the setting that the bundle uses by itself, and that of the diverse list in the table.

    Both are chosen where the recipe says what to keep; else the bundle keeps the relevance order.
    """
    if section.keep is not None:
        chosen = front.most_diverse(keep=section.keep)
        return chosen, chosen
    return front.plain, Point(section.strategy, section.space, section.diversity, {})


def lists_by(
    spaces: ItemSpaces,
    candidates: _Ints,
    scores: _Array,
    setting: Point,
    *,
    k: int,
    chances: Chances | None = None,
    category_weights: _Array | None = None,
    history_mix: _Array | None = None,
) -> _Ints:
    """Gives the lists (U, k) of a setting; see `ItemSpaces.choose`."""
    if setting.strategy == PLAIN:
        return candidates[:, :k]
    return spaces.choose(
        candidates,
        scores,
        k=k,
        diversity=setting.diversity,
        strategy=setting.strategy,
        space=setting.space,
        chances=chances,
        category_weights=category_weights,
        history_mix=history_mix,
    )[0]
