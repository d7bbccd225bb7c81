"""Baselines, the ranking head, and the table that compares them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lora_rec.data.dataset import Split
from lora_rec.data.lists import Lists
from lora_rec.metrics import coverage_at_k, evaluate_lists, ild_at_k, mean_over_users
from lora_rec.pipeline.head import FittedHead
from lora_rec.pipeline.item_item import rank_by
from lora_rec.pipeline.judge import JUDGED_K, draw_users, mean_ndcg
from lora_rec.pipeline.tradeoff import lists_by
from lora_rec.rank.categories import Categories
from lora_rec.rank.chances import Chances
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.linear import LinearModel, decompose, has_all_factors
from lora_rec.rank.rules import count_candidates
from lora_rec.rank.search import top_k, top_k_of
from lora_rec.rank.spaces import ItemSpaces
from lora_rec.rank.tradeoff import Point
from lora_rec.train.item_item import EXACT_ITEMS, count_pairs, fit_ease

logger = logging.getLogger(__name__)
_Array = NDArray[np.float32]
REGULARISATIONS = (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0)
DECAYS = (0.6, 0.7, 0.8, 0.9, 1.0)
RARE_COUNT = 2


@dataclass(frozen=True)
class LinearChoice:
    """The numbers of a linear model that validated best."""

    regularisation: float
    decay: float
    validation: float
    rank: int | None = None
    """Leading factors that stood for the matrix; None where it was whole."""


def choose_linear(split: Split) -> LinearChoice:
    """Chooses the numbers of a recency-weighted EASE, in the form of `decompose`, on validation data."""
    best: LinearChoice | None = None
    judged, known = draw_users(split.validation), split.train_histories()
    spectrum = decompose(known, n_items=split.n_items)
    rank = None if _has_all_factors(known, split.n_items) else spectrum.vectors.shape[1]
    for regularisation, decay in product(REGULARISATIONS, DECAYS):
        model = spectrum.model(regularisation=regularisation, decay=decay)
        users, histories = model.user_vectors(judged.histories), judged.histories
        lists, _ = top_k(users, model.item_vectors(), k=JUDGED_K, exclude=histories)
        score = mean_ndcg(lists, judged)
        if best is None or score > best.validation:
            best = LinearChoice(regularisation, decay, score, rank)
    assert best is not None  # the grids are not empty
    return best


def choose_ease(split: Split, start: LinearChoice, *, show_progress: bool = False) -> LinearChoice:
    """Chooses the numbers of EASE itself where `choose_linear` had leading factors alone.

    These lose most of what it knows where data is sparse, so they would be too weak a baseline; the towers'
    teacher needs vectors, and stays with them. Above `EXACT_ITEMS` items the baseline is the factors, too.

    Args:
        split: of the run.
        start: what `choose_linear` gave; its regularisation is tried first, then those next to the best.
        show_progress: a bar; each trial inverts a matrix of items by items.
    """
    if start.rank is None or split.n_items > EXACT_ITEMS:
        return start
    judged, known = draw_users(split.validation), split.train_histories()
    values: dict[float, LinearChoice] = {}
    waiting = [start.regularisation]
    with tqdm(desc="EASE", disable=not show_progress) as bar:
        while waiting:
            regularisation = waiting.pop()
            table = fit_ease(known, n_items=split.n_items, regularisation=regularisation)
            trials = []
            for decay in DECAYS:
                lists = rank_by(ItemItemModel(*table, decay), judged.histories, k=JUDGED_K)
                trials.append(LinearChoice(regularisation, decay, mean_ndcg(lists, judged)))
            values[regularisation] = max(trials, key=lambda trial: trial.validation)
            best = max(values.values(), key=lambda trial: trial.validation)
            place = REGULARISATIONS.index(best.regularisation)
            near = REGULARISATIONS[max(0, place - 1) : place + 2]
            waiting = [value for value in near if value not in values]
            bar.update()
            bar.set_postfix(validation=f"{best.validation:.4f}", regularisation=best.regularisation)
    return best


def fit_linear(histories: Lists, choice: LinearChoice, *, n_items: int) -> LinearModel:
    """Fits EASE with chosen numbers, in the form of `decompose`."""
    spectrum = decompose(histories, n_items=n_items)
    return spectrum.model(regularisation=choice.regularisation, decay=choice.decay)


def _has_all_factors(histories: Lists, n_items: int) -> bool:
    n_users = int((histories.counts > 0).sum())
    return has_all_factors(n_users, n_items, n_users=n_users)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Lists of every system for the test users, all judged alike."""

    split: Split
    ruler: _Array | None
    """(N, D), vectors on which `ild@k` is measured: those of the frozen towers, so no trained system is
    judged by its own; without them it is left out."""
    factors: _Array
    """(N, F), for `ild_factors@k`, see `spaces.factor_ruler`."""
    k: int
    lists: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """System to items (U, k)."""

    def add(self, system: str, users: _Array, items: _Array) -> None:
        """Ranks the catalogue by dot product for every test user."""
        self.lists[system], _ = top_k(users, items, k=self.k, exclude=self.split.test.histories)

    def add_baselines(self, ease: LinearChoice) -> None:
        """Adds popularity, item cosine and EASE, each fitted on all that lies before the test.

        Item cosine needs a matrix of items by items, and is left out above `EXACT_ITEMS`.

        Args:
            ease: of `choose_ease`.
        """
        split, test = self.split, self.split.test.histories
        counts = split.item_counts(include_validation=True).astype(np.float32)
        self.add("popularity", np.ones((len(test), 1), dtype=np.float32), counts[:, None])
        before = split.refit_histories()
        if split.n_items <= EXACT_ITEMS:
            self._add_item_cosine(before)
        else:
            logger.warning("item_cosine is left out: it is for up to %d items", EXACT_ITEMS)
        if ease.rank is None and not _has_all_factors(before, split.n_items):
            table = fit_ease(before, n_items=split.n_items, regularisation=ease.regularisation)
            self.lists["ease"] = rank_by(ItemItemModel(*table, ease.decay), test, k=self.k)
        else:
            model = fit_linear(before, ease, n_items=split.n_items)
            self.add("ease", model.user_vectors(test), model.item_vectors())

    def _add_item_cosine(self, before: Lists) -> None:
        test, taken = self.split.test.histories, before.without_repeats()
        # How often is not asked for, so strengths are left out.
        cosine = count_pairs(Lists(taken.values, taken.offsets), n_items=self.split.n_items, nearness=None)
        norms = np.sqrt(np.maximum(cosine.diagonal(), 1))
        cosine /= norms
        cosine /= norms[:, None]
        self.lists["item_cosine"], _ = top_k_of(
            lambda rows: np.stack([cosine[test[row]].sum(axis=0) for row in rows.tolist()]),
            n_users=len(test),
            n_items=self.split.n_items,
            k=self.k,
            exclude=test,
        )

    def add_head(
        self,
        fitted: FittedHead,
        spaces: ItemSpaces,
        setting: Point,
        *,
        n_candidates: int,
        chances: Chances | None = None,
        categories: Categories | None = None,
    ) -> None:
        """Adds the head as `recommend` serves it, from histories alone, and its lists re-ranked.

        Recent counts are those of each user's moment; a bundle serves those of the end of its log.
        """
        pool, scores = fitted.top_k(self.split.test, k=count_candidates(n_candidates, k=self.k))
        self.lists["ranking_head"] = pool[:, : self.k]
        self.lists["ranking_head_diverse"] = lists_by(
            spaces,
            pool,
            scores,
            setting,
            k=self.k,
            chances=chances,
            category_weights=None if categories is None else categories.weights,
            history_mix=None if categories is None else categories.mix(self.split.test.histories),
        )

    def table(self) -> dict[str, dict[str, float]]:
        """Gives every metric of every system; `(rare)`: targets with at most two earlier interactions."""
        rare = self.split.item_counts(include_validation=True) <= RARE_COUNT
        counts = self.split.user_counts(include_validation=True)
        return {name: self._row(lists, counts, rare) for name, lists in self.lists.items()}

    def _row(
        self, lists: NDArray[np.int64], counts: NDArray[np.int64], rare: NDArray[np.bool_]
    ) -> dict[str, float]:
        split, k = self.split, self.k
        quality = {"item_vectors": self.ruler, "item_counts": counts, "n_users": split.n_users, "k": k}
        histories = split.test.histories
        taken = list(histories) if len(histories.values) else None  # without any, nothing compares to them
        row = evaluate_lists(lists, list(split.test.targets), histories=taken, **quality)  # type: ignore[arg-type]
        rare_targets = [targets[rare[targets]] for targets in split.test.targets]
        chosen = np.flatnonzero([len(targets) > 0 for targets in rare_targets])
        row[f"ild_factors@{k}"] = mean_over_users(ild_at_k(lists, self.factors, k=k), name=f"ild_factors@{k}")
        # Coverage of the rare items is over all lists; relevance over the users who took one.
        only_rare = np.where((lists >= 0) & ~rare[lists], -1, lists)
        row[f"coverage@{k} (rare)"] = (
            coverage_at_k(_close_gaps(only_rare), k=k, n_items=len(rare)) * len(rare) / max(1, rare.sum())
        )
        if len(chosen):
            part = evaluate_lists(lists[chosen], [rare_targets[i] for i in chosen], **quality)  # type: ignore[arg-type]
            names = [f"{name}@{k}" for name in ("recall", "ndcg", "ild")]
            row |= {f"{name} (rare)": part[name] for name in names if name in part}
        return row


def _close_gaps(lists: NDArray[np.int64]) -> NDArray[np.int64]:
    """Moves the empty slots of each list to its end."""
    order = np.argsort(lists < 0, axis=1, kind="stable")
    return np.take_along_axis(lists, order, axis=1)
