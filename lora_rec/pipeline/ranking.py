"""Baselines, the ranking head, and the table that compares them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import EvaluationSet, Split
from lora_rec.data.examples import Examples
from lora_rec.data.lists import Lists
from lora_rec.metrics import coverage_at_k, evaluate_lists
from lora_rec.pipeline.data import Texts
from lora_rec.pipeline.item_item import ItemItemChoice, choose_item_item
from lora_rec.pipeline.judge import JUDGED_K, draw_users, mean_ndcg
from lora_rec.pipeline.towers import Vectors
from lora_rec.rank.baselines import item_cosine_vectors, sum_of_history
from lora_rec.rank.head import RankingHead
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.linear import LinearModel, centre, decompose
from lora_rec.rank.ranker import rerank_lists
from lora_rec.rank.search import top_k
from lora_rec.rank.sequence import SequencePart
from lora_rec.recipe import HeadSection, RankingSection
from lora_rec.train.head import HeadExamples, train_sequence_head
from lora_rec.train.item_item import prepare_fit
from lora_rec.train.sequence import SequenceHead

_Array = NDArray[np.float32]
REGULARISATIONS = (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0)
DECAYS = (0.6, 0.7, 0.8, 0.9, 1.0)
SEQUENCE_SHARES = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Spread of the sequence part's scores over that of the linear part's."""
RARE_COUNT = 2


@dataclass(frozen=True)
class LinearChoice:
    """The numbers of a linear model that validated best."""

    regularisation: float
    decay: float
    validation: float


@dataclass(frozen=True, eq=False)
class FittedHead:
    """The head before and after its linear part saw the validation items."""

    head: RankingHead
    choice: ItemItemChoice
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
    """Fits the head on what the towers gave; see `fit_on_texts`."""
    first_targets = examples.targets.values[examples.targets.offsets[:-1]]
    return fit_on_texts(
        section,
        text_vectors(vectors, item_states),
        split,
        examples=HeadExamples(examples.histories, first_targets, vectors.users[texts.example_texts]),
        user_width=vectors.users.shape[1],
        seed=seed,
        show_progress=show_progress,
    )


def fit_on_texts(
    section: HeadSection,
    text: _Array,
    split: Split,
    *,
    examples: HeadExamples | None = None,
    user_width: int = 0,
    seed: int = 0,
    show_progress: bool = False,
) -> FittedHead:
    """Fits both parts of the head and their weight: everything is chosen on validation data.

    Args:
        section: settings.
        text: (N, T), centred unit vectors of the items' texts.
        split: learned from and judged on; the linear part is fitted again on all that lies before the test.
        examples: points with the user tower's vectors, if there is one.
        user_width: length of these.
        seed: of the sequence part.
        show_progress: bars.
    """
    n_neighbours = section.n_neighbours
    choice, linear = choose_item_item(
        split,
        text_vectors=text,
        n_neighbours=n_neighbours,
        n_fits=section.n_fits,
        show_progress=show_progress,
    )
    judged = draw_users(split.validation)

    def validate(head: RankingHead) -> float:
        lists, _ = head.top_k(judged.histories, k=JUDGED_K)
        return mean_ndcg(lists, judged)

    module = SequenceHead(
        text,
        split.item_counts(),
        user_width=user_width,
        width=section.width,
        n_blocks=section.n_blocks,
        n_heads=section.n_heads,
        history_length=section.history_length,
        dropout=section.dropout,
        id_dropout=section.id_dropout,
        min_id_count=section.min_id_count,
        temperature=section.temperature,
    )
    arrays = train_sequence_head(
        module,
        histories=split.train_histories(),
        examples=examples,
        validate=lambda arrays: validate(_join(linear, SequencePart(**arrays), judged, share=1.0)),
        epochs=section.epochs,
        batch_size=section.batch_size,
        learning_rate=section.learning_rate,
        weight_decay=section.weight_decay,
        seed=seed,
        show_progress=show_progress,
    )
    sequence = SequencePart(**arrays)
    joined = [_join(linear, sequence, judged, share=share) for share in SEQUENCE_SHARES]
    scores = [validate(head) for head in joined]
    weight = joined[int(np.argmax(scores))].sequence_weight
    fit = prepare_fit(split.refit_histories(), n_items=split.n_items, text_vectors=text)
    refitted = ItemItemModel(*fit.table(choice.settings, n_neighbours=n_neighbours), choice.decay)
    return FittedHead(RankingHead(refitted, sequence, weight), choice, max(scores))


def _join(
    linear: ItemItemModel, sequence: SequencePart, judged: EvaluationSet, *, share: float
) -> RankingHead:
    """Weighs the sequence part so that its scores spread as widely as the linear part's, times the share."""
    histories = judged.histories.take(np.arange(min(256, len(judged))))
    users = sequence.user_vectors(histories)
    spread = float((users @ sequence.items.T + sequence.item_bias).std())
    return RankingHead(linear, sequence, share * float(linear.scores(histories).std()) / max(spread, 1e-6))


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
        pool, scores = head.top_k(self.split.test.histories, k=max(self.k, section.n_candidates))
        self.lists["ranking_head"] = pool[:, : self.k]
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
