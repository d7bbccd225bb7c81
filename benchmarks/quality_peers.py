"""The peers that need no other environment: popularity, neighbours, EASE, frozen text vectors, click rates.

Each chooses its settings on validation with the same number of trials (`quality_search.TRIALS`), learns again
from all that lies before the test, and is judged there once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from quality_judge import Answer, Scorer, System, choose_and_rank, choose_and_score
from quality_search import Axes, Settings
from quality_sets import ImpressionSet, Part, Prepared, RankingSet

from lora_rec.data import Impressions, Lists
from lora_rec.rank.linear import Spectrum, decompose, sum_by_row

_Array = NDArray[np.float32]
_ROWS = 16  # users whose histories' rows of an item-item matrix lie side by side in memory
_EXACT_USERS = 4096  # above, the item-item matrix is inverted instead of decomposed
_REGULARISATIONS = (5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0)
_DECAYS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
KNN_AXES: Axes = {"neighbours": (10, 20, 50, 100, 200, 500, 100_000), "shrinkage": (0, 3, 10, 30, 100)}
EASE_AXES: dict[str, tuple[float, ...]] = {"regularisation": _REGULARISATIONS}
PLAYS: dict[str, tuple[float, ...]] = {"plays": (0.0, 1.0)}
"""Of sets that say how often."""
RECENCY_AXES: Axes = {"regularisation": _REGULARISATIONS}
DECAY: Axes = {"decay": _DECAYS}
TEXT_AXES: Axes = {"decay": _DECAYS}
WHITENED_AXES: Axes = {"decay": _DECAYS, "dimensions": (32, 64, 128, 192, 256, 320, 384)}
AFFINITY_AXES: Axes = {"weight": (0.0, 0.5, 1.0, 2.0, 4.0, 8.0), "prior": (3, 10, 30, 100, 300)}
RATE_AXES: Axes = {"prior": (3, 10, 30, 100, 300)}


def weights_of(part: Part, decay: float) -> _Array:
    """Gives the weight of every item of the part's histories: the newest 1, each step before times decay."""
    return np.float32(decay) ** part.ages.astype(np.float32)


def weighted_rows(part: Part, weights: _Array, rows: _Array) -> Scorer:
    """Scores a user by the weighted sum of the rows of the history's items; `rows` is (N, N)."""
    histories = part.evaluation.histories

    def score(start: int, stop: int) -> _Array:
        parts = []
        for first in range(start, stop, _ROWS):
            last = min(first + _ROWS, stop)
            where = slice(histories.offsets[first], histories.offsets[last])
            kept = np.flatnonzero(weights[where] > 1e-4)
            owners = np.repeat(np.arange(last - first), histories.counts[first:last])[kept]
            weighted = rows[histories.values[where][kept]] * weights[where][kept, None]
            parts.append(sum_by_row(weighted, owners, n_rows=last - first))
        return np.concatenate(parts)

    return score


def weighted_vectors(part: Part, weights: _Array, *, user_side: _Array, item_side: _Array) -> Scorer:
    """Scores by dot product of the weighted sum of the history's `user_side`, (N, D), with `item_side`."""
    sums = weighted_rows(part, weights, user_side)
    return lambda start, stop: sums(start, stop) @ item_side.T


def popularity(prepared: RankingSet, seed: int, trials: int) -> Answer:
    """Ranks by the number of interactions."""

    def build(part: Part, _: Settings) -> Scorer:
        counts = np.bincount(part.fit.values, minlength=prepared.n_items).astype(np.float32)
        return lambda start, stop: np.broadcast_to(counts, (stop - start, len(counts)))

    return choose_and_rank(prepared, build, {}, {}, trials)


@lru_cache(maxsize=1)
def _co_counts(fit: Lists, n_items: int) -> _Array:
    gram = np.zeros((n_items, n_items), dtype=np.float32)
    for items in fit:
        once = np.unique(items)
        gram[np.ix_(once, once)] += 1
    return gram


def item_knn(prepared: RankingSet, seed: int, trials: int) -> Answer:
    """Sums the cosines of the history's items with each candidate; each item keeps its nearest neighbours."""

    def build(part: Part, settings: Settings) -> Scorer:
        similar = np.array(_co_counts(part.fit, prepared.n_items))
        norms = np.sqrt(np.diag(similar)).copy()
        np.fill_diagonal(similar, 0)
        for row, norm in zip(similar, norms, strict=True):
            row /= np.maximum(norm * norms + np.float32(settings["shrinkage"]), 1e-6)
        k = int(settings["neighbours"])
        if k < prepared.n_items:
            for row in similar:
                row[row < np.partition(row, -k)[-k]] = 0
        return weighted_rows(part, weights_of(part, 1.0), similar)

    return choose_and_rank(prepared, build, KNN_AXES, {"neighbours": 100, "shrinkage": 10}, trials)


@lru_cache(maxsize=2)
def _spectrum(fit: Lists, n_items: int, plays: bool) -> Spectrum:
    # As published, whoever took an item took it, however often.
    return decompose(fit if plays else Lists(fit.values, fit.offsets), n_items=n_items)


@lru_cache(maxsize=5)
def _ease_matrix(fit: Lists, n_items: int, regularisation: float) -> _Array:
    """Gives EASE's B (Steck 2019), (N, N), by Cholesky; some settings share one, so a few are kept."""
    import torch

    gram = torch.from_numpy(np.array(_co_counts(fit, n_items)))
    gram.diagonal().add_(regularisation)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    inverse /= -inverse.diagonal().clone()[None]
    inverse.diagonal().zero_()
    return inverse.numpy()


def _ease_scorer(
    part: Part, n_items: int, *, regularisation: float, decay: float, plays: float = 0.0
) -> Scorer:
    """Scores by EASE; the model is the same on both ways, exact where users or items are few enough.

    With `plays`, the logarithm of how often somebody took an item weighs it, as in our linear part.
    """
    weights = weights_of(part, decay)
    if plays:
        weights = weights * part.evaluation.histories.relative_strengths()
    if min(int((part.fit.counts > 0).sum()), n_items) <= _EXACT_USERS:
        model = _spectrum(part.fit, n_items, bool(plays)).model(regularisation=regularisation, decay=1.0)
        return weighted_vectors(part, weights, user_side=model.factors, item_side=model.item_vectors())
    return weighted_rows(part, weights, _ease_matrix(part.fit, n_items, regularisation))


def ease(prepared: RankingSet, seed: int, trials: int) -> Answer:
    """EASE, every item of the history alike, or where plays are known by how often as well."""

    def build(part: Part, settings: Settings) -> Scorer:
        return _ease_scorer(part, prepared.n_items, decay=1.0, **settings)

    axes, start = EASE_AXES, {"regularisation": 100.0}
    if prepared.test.fit.strengths is not None:
        axes, start = axes | PLAYS, start | {"plays": 1.0}
    return choose_and_rank(prepared, build, axes, start, trials)


def recency_ease(prepared: RankingSet, seed: int, trials: int) -> Answer:
    """EASE, the history weighted by recency."""

    def build(part: Part, settings: Settings) -> Scorer:
        return _ease_scorer(part, prepared.n_items, **settings)

    return choose_and_rank(prepared, build, RECENCY_AXES, {"regularisation": 100.0}, trials, free=DECAY)


def whiten(vectors: _Array, known: NDArray[np.bool_], *, dimensions: int) -> _Array:
    """Gives unit vectors (N, dimensions) whose leading directions weigh alike among the known items."""
    mean = vectors[known].mean(axis=0)
    values, directions = np.linalg.eigh(np.cov((vectors[known] - mean).T.astype(np.float64)))
    order = np.argsort(values)[::-1][: min(dimensions, int((values > 1e-8 * values[-1]).sum()))]
    white = (vectors - mean) @ (directions[:, order] / np.sqrt(values[order])).astype(np.float32)
    return white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)


def _text_answer(prepared: RankingSet, trials: int, *, whitened: bool) -> Answer:
    def build(part: Part, settings: Settings) -> Scorer:
        vectors = prepared.item_vectors
        if whitened:
            known = np.bincount(part.fit.values, minlength=prepared.n_items) > 0
            vectors = whiten(vectors, known, dimensions=int(settings["dimensions"]))
        weights = weights_of(part, settings["decay"])
        return weighted_vectors(part, weights, user_side=vectors, item_side=vectors)

    axes = {"dimensions": WHITENED_AXES["dimensions"]} if whitened else {}
    start = {"dimensions": 256.0} if whitened else {}
    free = DECAY if prepared.ordered else {"decay": (1.0,)}
    return choose_and_rank(prepared, build, axes, start, trials, free=free)


def order_candidates(shown: Impressions, vectors: _Array, *, decay: float) -> NDArray[np.float64]:
    """Scores each candidate by its dot product with the recency-weighted sum of the history's vectors."""
    histories = shown.histories
    ends = np.repeat(histories.offsets[1:], histories.counts)
    weights = decay ** (ends - 1 - np.arange(len(ends)))
    owners = np.repeat(np.arange(len(histories)), histories.counts)
    weighted = vectors[histories.values] * weights[:, None].astype(np.float32)
    users = sum_by_row(weighted, owners, n_rows=len(histories))
    rows = np.repeat(np.arange(len(shown)), shown.candidates.counts)
    return np.einsum("nd,nd->n", users[rows], vectors[shown.candidates.values]).astype(np.float64)


def _text_impressions(prepared: ImpressionSet, trials: int, *, whitened: bool) -> Answer:
    def build(before: Sequence[Impressions], shown: Impressions, settings: Settings) -> NDArray[np.float64]:
        vectors = prepared.item_vectors
        if whitened:
            known = np.zeros(prepared.n_items, dtype=bool)
            for part in before:
                known[np.concatenate([part.candidates.values, part.histories.values])] = True
            vectors = whiten(vectors, known, dimensions=int(settings["dimensions"]))
        return order_candidates(shown, vectors, decay=settings["decay"])

    start = {"decay": 0.9} | ({"dimensions": 256} if whitened else {})
    return choose_and_score(prepared, build, WHITENED_AXES if whitened else TEXT_AXES, start, trials)


def text(prepared: Prepared, seed: int, trials: int, *, whitened: bool) -> Answer:
    """Frozen MiniLM vectors: a user is the recency-weighted mean of the history."""
    if isinstance(prepared, ImpressionSet):
        return _text_impressions(prepared, trials, whitened=whitened)
    return _text_answer(prepared, trials, whitened=whitened)


def click_rates(before: Sequence[Impressions], *, n_items: int, prior: float) -> NDArray[np.float64]:
    """Gives (n_items,), clicks over times shown, drawn to the rate of all by `prior` more times shown."""
    shown, clicked = np.zeros(n_items), np.zeros(n_items)
    for part in before:
        shown += np.bincount(part.candidates.values, minlength=n_items)
        clicked += np.bincount(part.candidates.values[part.clicks], minlength=n_items)
    return (clicked + prior * clicked.sum() / shown.sum()) / (shown + prior)


def click_rate(prepared: ImpressionSet, seed: int, trials: int) -> Answer:
    """Ranks by the click rate of the earlier impressions."""

    def build(before: Sequence[Impressions], shown: Impressions, settings: Settings) -> NDArray[np.float64]:
        return click_rates(before, n_items=prepared.n_items, **settings)[shown.candidates.values]

    return choose_and_score(prepared, build, RATE_AXES, {"prior": 30}, trials)


def category_affinity(prepared: ImpressionSet, seed: int, trials: int) -> Answer:
    """Adds the log of the click rate and the log of the category's lift in the history, weighted.

    The lift is the category's share of the history, smoothed by ten clicks with the shares of all histories,
    over these. On validation it orders better than the share alone (AUC .59 against .56).
    """
    categories = prepared.categories

    def build(before: Sequence[Impressions], shown: Impressions, settings: Settings) -> NDArray[np.float64]:
        rates = click_rates(before, n_items=prepared.n_items, prior=settings["prior"])
        read = np.concatenate([categories[part.histories.values] for part in before])
        n = int(categories.max()) + 1
        shares = (np.bincount(read, minlength=n) + 1) / (len(read) + n)
        counts = np.zeros((len(shown), n))
        owners = np.repeat(np.arange(len(shown)), shown.histories.counts)
        np.add.at(counts, (owners, categories[shown.histories.values]), 1)
        affinity = np.log((counts / shares + 10) / (counts.sum(axis=1, keepdims=True) + 10))
        rows = np.repeat(np.arange(len(shown)), shown.candidates.counts)
        items = shown.candidates.values
        return np.asarray(settings["weight"] * np.log(rates[items]) + affinity[rows, categories[items]])

    return choose_and_score(prepared, build, AFFINITY_AXES, {"weight": 1.0, "prior": 30}, trials)


def lists_only(prepared: Prepared) -> str:
    """Says where a system that ranks the catalogue by interactions cannot run."""
    if isinstance(prepared, ImpressionSet):
        return "orders a catalogue, and the news of the test day are new to it"
    return "has nothing to tell withheld items apart" if prepared.test.withheld is not None else ""


def _popular(prepared: Prepared) -> str:
    return lists_only(prepared) if isinstance(prepared, ImpressionSet) else ""


def in_order(prepared: Prepared) -> str:
    """Says where a system that needs the order of time cannot run."""
    reason = lists_only(prepared)
    return reason or ("" if isinstance(prepared, RankingSet) and prepared.ordered else "there are no times")


def _everywhere(prepared: Prepared) -> str:
    return ""


def _impressions_only(prepared: Prepared) -> str:
    return "" if isinstance(prepared, ImpressionSet) else "orders impressions, and this set has none"


def _text_system(*, whitened: bool) -> Callable[[Prepared, int, int], Answer]:
    return lambda prepared, seed, trials: text(prepared, seed, trials, whitened=whitened)


PEERS: dict[str, System] = {
    # Of a cold set this is a random order: nothing was counted.
    "popularity": System(popularity, _popular),  # type: ignore[arg-type]
    "item_knn": System(item_knn, lists_only, KNN_AXES),  # type: ignore[arg-type]
    "ease": System(ease, lists_only, EASE_AXES | PLAYS),  # type: ignore[arg-type]
    "recency_ease": System(recency_ease, in_order, RECENCY_AXES),  # type: ignore[arg-type]
    "minilm": System(_text_system(whitened=False), _everywhere, TEXT_AXES),
    "minilm_whitened": System(_text_system(whitened=True), _everywhere, WHITENED_AXES),
    "click_rate": System(click_rate, _impressions_only, RATE_AXES),  # type: ignore[arg-type]
    "category_affinity": System(category_affinity, _impressions_only, AFFINITY_AXES),  # type: ignore[arg-type]
}
