"""Baselines, the ranking head, and the table that compares them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Split
from lora_rec.data.lists import Lists
from lora_rec.metrics import coverage_at_k, evaluate_lists, ild_at_k, mean_over_users
from lora_rec.pipeline.head import FittedHead
from lora_rec.pipeline.judge import JUDGED_K, mean_ndcg
from lora_rec.pipeline.tradeoff import lists_by
from lora_rec.rank.baselines import item_cosine_vectors, sum_of_history
from lora_rec.rank.categories import Categories
from lora_rec.rank.chances import Chances
from lora_rec.rank.linear import LinearModel, decompose
from lora_rec.rank.rules import count_candidates
from lora_rec.rank.search import top_k
from lora_rec.rank.spaces import ItemSpaces
from lora_rec.rank.tradeoff import Point

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


def choose_linear(split: Split) -> LinearChoice:
    """Chooses the numbers of a recency-weighted EASE on validation data."""
    best: LinearChoice | None = None
    spectrum = decompose(split.train_histories(), n_items=split.n_items)
    for regularisation, decay in product(REGULARISATIONS, DECAYS):
        model = spectrum.model(regularisation=regularisation, decay=decay)
        users, histories = model.user_vectors(split.validation.histories), split.validation.histories
        lists, _ = top_k(users, model.item_vectors(), k=JUDGED_K, exclude=histories)
        score = mean_ndcg(lists, split.validation)
        if best is None or score > best.validation:
            best = LinearChoice(regularisation, decay, score)
    assert best is not None  # the grids are not empty
    return best


def fit_linear(histories: Lists, choice: LinearChoice, *, n_items: int) -> LinearModel:
    """Fits EASE with chosen numbers."""
    spectrum = decompose(histories, n_items=n_items)
    return spectrum.model(regularisation=choice.regularisation, decay=choice.decay)


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
        """Adds popularity, item cosine and EASE, each fitted on all that lies before the test."""
        split, test = self.split, self.split.test.histories
        counts = split.item_counts(include_validation=True).astype(np.float32)
        self.add("popularity", np.ones((len(test), 1), dtype=np.float32), counts[:, None])
        before = split.refit_histories()
        cosine, _ = item_cosine_vectors(before, n_items=split.n_items)
        self.add("item_cosine", sum_of_history(test, cosine), cosine)
        model = fit_linear(before, ease, n_items=split.n_items)
        self.add("ease", model.user_vectors(test), model.item_vectors())

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
