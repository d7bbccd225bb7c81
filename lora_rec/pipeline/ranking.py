"""Baselines, the ranking head, and the table that compares them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import EvaluationSet, Lists, Split
from lora_rec.data.examples import Examples
from lora_rec.metrics import coverage_at_k, evaluate_lists, ndcg_at_k
from lora_rec.pipeline.data import Texts
from lora_rec.pipeline.towers import Vectors
from lora_rec.rank.baselines import item_cosine_vectors, sum_of_history
from lora_rec.rank.head import RankingHead
from lora_rec.rank.linear import LinearModel, centre, decompose
from lora_rec.rank.ranker import rerank_lists
from lora_rec.rank.search import top_k
from lora_rec.rank.sequence import SequencePart
from lora_rec.recipe import HeadSection, RankingSection
from lora_rec.train.head import HeadExamples, train_sequence_head
from lora_rec.train.sequence import SequenceHead

_Array = NDArray[np.float32]
REGULARISATIONS = (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0)
DECAYS = (0.6, 0.7, 0.8, 0.9, 1.0)
TEXT_WEIGHTS = (0.0, 2.0, 4.0, 8.0)
SEQUENCE_WEIGHTS = (0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
VALIDATED_WEIGHT = 0.008  # of the sequence part while its epochs are compared
RARE_COUNT = 2


@dataclass(frozen=True)
class LinearChoice:
    """The numbers of a linear model that validated best."""

    regularisation: float
    decay: float
    text_weight: float
    validation: float


@dataclass(frozen=True, eq=False)
class FittedHead:
    """The head before and after its linear part saw the validation items."""

    head: RankingHead
    choice: LinearChoice
    validation: float


def validation_score(users: _Array, items: _Array, chosen: EvaluationSet) -> float:
    """Gives the mean `ndcg@10` of the lists by dot product, seen items left out."""
    lists, _ = top_k(users, items, k=10, exclude=chosen.histories)
    return float(ndcg_at_k(lists, list(chosen.targets), k=10).mean())


def choose_linear(
    split: Split, *, text_vectors: _Array | None = None, text_weights: Iterable[float] = (0.0,)
) -> LinearChoice:
    """Chooses a linear item-item model's numbers on validation data; without text this is EASE."""
    best: LinearChoice | None = None
    for text_weight in text_weights:
        spectrum = decompose(
            split.train_histories(), n_items=split.n_items, text_vectors=text_vectors, text_weight=text_weight
        )
        for regularisation, decay in product(REGULARISATIONS, DECAYS):
            model = spectrum.model(regularisation=regularisation, decay=decay)
            score = validation_score(
                model.user_vectors(split.validation.histories), model.item_vectors(), split.validation
            )
            if best is None or score > best.validation:
                best = LinearChoice(regularisation, decay, text_weight, score)
    assert best is not None  # the grids are not empty
    return best


def fit_linear(
    histories: Lists,
    choice: LinearChoice,
    *,
    n_items: int,
    text_vectors: _Array | None = None,
    max_rank: int | None = None,
) -> LinearModel:
    """Fits a linear model with chosen numbers."""
    spectrum = decompose(
        histories, n_items=n_items, text_vectors=text_vectors, text_weight=choice.text_weight
    )
    return spectrum.model(regularisation=choice.regularisation, decay=choice.decay, max_rank=max_rank)


def text_vectors(vectors: Vectors, item_states: _Array) -> _Array:
    """Gives what the head knows of item texts, (N, D + H): item tower and user tower side by side."""
    return np.concatenate([centre(vectors.items), item_states], axis=1) / np.float32(np.sqrt(2))


def fit_head(
    section: HeadSection,
    vectors: Vectors,
    item_states: _Array,
    split: Split,
    examples: Examples,
    texts: Texts,
    *,
    seed: int,
    show_progress: bool,
) -> FittedHead:
    """Fits both parts of the head and their weight: everything is chosen on validation data."""
    text = text_vectors(vectors, item_states)
    choice = choose_linear(split, text_vectors=text, text_weights=TEXT_WEIGHTS)
    fit = {"n_items": split.n_items, "text_vectors": text, "max_rank": section.linear_rank}
    linear = fit_linear(split.train_histories(), choice, **fit)  # type: ignore[arg-type]

    def validate(sequence: SequencePart, weight: float) -> float:
        head = RankingHead(linear, sequence, weight)
        return validation_score(
            head.user_vectors(split.validation.histories), head.item_vectors(), split.validation
        )

    module = SequenceHead(
        text,
        split.item_counts(),
        user_width=vectors.users.shape[1],
        width=section.width,
        n_blocks=section.n_blocks,
        n_heads=section.n_heads,
        history_length=section.history_length,
        dropout=section.dropout,
        id_dropout=section.id_dropout,
        min_id_count=section.min_id_count,
        temperature=section.temperature,
    )
    first_targets = examples.targets.values[examples.targets.offsets[:-1]]
    arrays = train_sequence_head(
        module,
        histories=split.train_histories(),
        examples=HeadExamples(examples.histories, first_targets, vectors.users[texts.example_texts]),
        validate=lambda arrays: validate(SequencePart(**arrays), VALIDATED_WEIGHT),
        epochs=section.epochs,
        batch_size=section.batch_size,
        learning_rate=section.learning_rate,
        weight_decay=section.weight_decay,
        seed=seed,
        show_progress=show_progress,
    )
    sequence = SequencePart(**arrays)
    scores = {weight: validate(sequence, weight) for weight in SEQUENCE_WEIGHTS}
    weight = max(scores, key=lambda w: scores[w])
    refitted = fit_linear(split.refit_histories(), choice, **fit)  # type: ignore[arg-type]
    return FittedHead(RankingHead(refitted, sequence, weight), choice, scores[weight])


@dataclass(frozen=True, eq=False)
class Comparison:
    """Lists of every system for the test users, all judged alike."""

    split: Split
    ruler: _Array
    """(N, D), vectors on which `ild@k` is measured: those of the frozen towers, so no trained system is
    judged by its own."""
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

    def add_head(self, head: RankingHead, similarity: _Array, section: RankingSection) -> None:
        """Adds the head as `recommend` serves it, from histories alone, and its lists re-ranked."""
        users, items = head.user_vectors(self.split.test.histories), head.item_vectors()
        self.add("ranking_head", users, items)
        pool, scores = top_k(
            users, items, k=max(self.k, section.n_candidates), exclude=self.split.test.histories
        )
        self.lists["ranking_head_diverse"], _ = rerank_lists(
            pool, scores, similarity, k=self.k, diversity=section.diversity, strategy=section.strategy
        )

    def table(self) -> dict[str, dict[str, float]]:
        """Gives every metric of every system; `(rare)`: targets with at most two earlier interactions."""
        counts = self.split.item_counts(include_validation=True)
        rare = counts <= RARE_COUNT
        return {name: self._row(lists, counts, rare) for name, lists in self.lists.items()}

    def _row(
        self, lists: NDArray[np.int64], counts: NDArray[np.int64], rare: NDArray[np.bool_]
    ) -> dict[str, float]:
        split, k = self.split, self.k
        quality = {"item_vectors": self.ruler, "item_counts": counts, "n_users": split.n_users, "k": k}
        row = evaluate_lists(lists, list(split.test.targets), **quality)  # type: ignore[arg-type]
        rare_targets = [targets[rare[targets]] for targets in split.test.targets]
        chosen = np.flatnonzero([len(targets) > 0 for targets in rare_targets])
        # Coverage of the rare items is over all lists; relevance over the users who took one.
        only_rare = np.where((lists >= 0) & ~rare[lists], -1, lists)
        row[f"coverage@{k} (rare)"] = (
            coverage_at_k(_close_gaps(only_rare), k=k, n_items=len(rare)) * len(rare) / max(1, rare.sum())
        )
        if len(chosen):
            part = evaluate_lists(lists[chosen], [rare_targets[i] for i in chosen], **quality)  # type: ignore[arg-type]
            row |= {f"{name}@{k} (rare)": part[f"{name}@{k}"] for name in ("recall", "ndcg", "ild")}
        return row


def _close_gaps(lists: NDArray[np.int64]) -> NDArray[np.int64]:
    """Moves the empty slots of each list to its end."""
    order = np.argsort(lists < 0, axis=1, kind="stable")
    return np.take_along_axis(lists, order, axis=1)
