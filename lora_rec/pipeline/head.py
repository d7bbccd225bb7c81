"""Fits the ranking head: its parts, their weights, and how new items score."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lora_rec.data.dataset import EvaluationSet, Split
from lora_rec.data.examples import Examples
from lora_rec.pipeline.data import Texts
from lora_rec.pipeline.item_item import ItemItemChoice, choose_item_item
from lora_rec.pipeline.judge import draw_users, mean_ndcg
from lora_rec.pipeline.new_items import (
    NewItemChoice,
    choose_new_items,
    new_items_of,
    place_by_neighbours,
)
from lora_rec.pipeline.towers import Vectors
from lora_rec.pipeline.weights import (
    Recent,
    choose_recent,
    choose_sequence_weight,
    rank_judged,
    recent_of,
    sequence_unit,
)
from lora_rec.rank.head import RankingHead
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.linear import centre
from lora_rec.rank.recent import DAY, RecentCounts
from lora_rec.rank.search import top_k_of
from lora_rec.rank.sequence import SequencePart
from lora_rec.recipe import HeadSection
from lora_rec.train.head import HeadExamples, train_sequence_head
from lora_rec.train.item_item import prepare_fit
from lora_rec.train.sequence import SequenceHead

_Array = NDArray[np.float32]
logger = logging.getLogger(__name__)
SEEN_MOMENTS = 200
LEAST_SHARE = 0.05
"""Of what is usually taken lately: below it the end of the log is not what it looks like."""
ChosenLinear = tuple[ItemItemChoice, ItemItemModel]


@dataclass(frozen=True, eq=False)
class FittedHead:
    """The head, after its linear part saw the validation items, and how it was chosen."""

    head: RankingHead
    choice: ItemItemChoice
    validation: float
    half_life: float | None
    """Days; None where recent counts do not help, or there are no times."""
    recent: RecentCounts | None
    """Of all that lies before the test."""
    new_items: NewItemChoice | None
    """None where every item was taken."""
    before_refit: FittedHead | None = None
    """The same parts as learned from training alone: what is chosen on validation users is judged with it."""

    def top_k(self, wanted: EvaluationSet, *, k: int) -> tuple[NDArray[np.int64], _Array]:
        """Gives the lists as they would have been served at each user's moment; see `lists_at_moments`."""
        counts = recent_of(self.recent, wanted, half_life=self.half_life)
        return lists_at_moments(self.head, wanted, recent=counts, k=k)

    def scores(self, wanted: EvaluationSet) -> _Array:
        """Gives (U, N) with the recent counts of each user's moment."""
        recent = recent_of(self.recent, wanted, half_life=self.half_life)
        counts = None if recent is None else recent(np.arange(len(wanted)))
        return self.head.scores(wanted.histories, recent=counts)

    def numbers(self) -> dict[str, Any]:
        """Gives what was chosen, for the log."""
        return asdict(self.choice) | {
            "sequence_weight": self.head.sequence_weight,
            "half_life": self.half_life,
            "recent_weight": self.head.recent_weight,
            "new_items": None if self.new_items is None else asdict(self.new_items),
            "validation": self.validation,
        }


def lists_at_moments(
    head: RankingHead, wanted: EvaluationSet, *, recent: Recent | None, k: int
) -> tuple[NDArray[np.int64], _Array]:
    """Gives the lists as they would have been served at each user's moment.

    Args:
        head: that of a run or a bundle.
        wanted: U users.
        recent: counts of each user's moment, see `recent_of`; those of the head for everybody without it.
        k: list length.

    Returns:
        Items (U, K) and scores (U, K), see `top_k_of`.
    """
    return top_k_of(
        lambda rows: head.scores(
            wanted.histories.take(rows), recent=None if recent is None else recent(rows)
        ),
        n_users=len(wanted),
        n_items=head.n_items,
        k=k,
        exclude=wanted.histories,
    )


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
    # Of longer histories than the texts tell of: the head is served with those, beside such a text.
    histories = examples.before(split.train_histories(), length=section.history_length)
    return fit_on_texts(
        section,
        text_vectors(vectors, item_states),
        split,
        examples=HeadExamples(histories, first_targets, vectors.users[texts.example_texts]),
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
    linear: ChosenLinear | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> FittedHead:
    """Fits the head: its parts, their weights and new items' scores, all chosen on validation data.

    Args:
        section: settings.
        text: (N, T), centred unit vectors of the items' texts.
        split: learned from and judged on; the linear part is fitted again on all that lies before the test.
        examples: points with the user tower's vectors, if there is one.
        user_width: length of these.
        linear: what `choose_item_item` gave for this split and these texts; it is called when left out.
        seed: of the sequence part.
        show_progress: bars.
    """
    n_neighbours = section.n_neighbours
    choice, model = linear or choose_item_item(
        split,
        text_vectors=text,
        n_neighbours=n_neighbours,
        n_fits=section.n_fits,
        show_progress=show_progress,
    )
    judged = draw_users(split.validation)
    head = RankingHead(model)
    if section.epochs:
        part = _train_sequence(
            section, text, split, model, judged, examples, user_width, seed=seed, show_progress=show_progress
        )
        head = choose_sequence_weight(replace(head, sequence=part), judged)
    counts = RecentCounts.from_log(split.train_log, n_items=split.n_items)
    head, half_life = choose_recent(head, counts, judged)
    recent = recent_of(counts, judged, half_life=half_life)
    if recent is not None and head.sequence is not None:
        head = choose_sequence_weight(head, judged, recent=recent)
    validation = mean_ndcg(rank_judged(head, judged, recent=recent), judged)
    unrefitted = head
    fit = prepare_fit(split.refit_histories(), n_items=split.n_items, text_vectors=text)
    refitted = ItemItemModel(*fit.table(choice.settings, n_neighbours=n_neighbours), choice.decay)
    learned, known = split.item_counts(), split.item_counts(include_validation=True)
    chosen = None
    if not learned.all():
        chosen = choose_new_items(head, text, learned, judged, recent=recent, cost=section.new_item_cost)
        unrefitted = replace(head, new_items=new_items_of(chosen, text, learned))
        if head.sequence is not None:
            # It is not fitted again, so it knows nothing of what came with the validation part.
            head = replace(head, sequence=place_by_neighbours(head.sequence, unrefitted.new_items))
        head = replace(head, new_items=new_items_of(chosen, text, known))
    later = None
    if half_life is not None:
        later = RecentCounts.from_log(split.refit_log, n_items=split.n_items)
        assert later is not None  # the training log has times
        head = replace(head, recent=_recent_at_the_end(later, counts, judged, half_life=half_life))
    before = FittedHead(unrefitted, choice, validation, half_life, counts, chosen)
    return FittedHead(replace(head, linear=refitted), choice, validation, half_life, later, chosen, before)


def _recent_at_the_end(
    later: RecentCounts, counts: RecentCounts | None, judged: EvaluationSet, *, half_life: float
) -> _Array:
    """Gives the counts that a bundle serves, and warns where dates far apart from the others emptied them."""
    served = later.now(half_life=half_life, latest=int(time.time() + DAY))
    assert counts is not None and judged.times is not None  # a half-life was chosen on them
    moments = judged.times[: min(SEEN_MOMENTS, len(judged))]
    usual = float(np.median(counts.at(moments, half_life=half_life).sum(axis=1)))
    if served.sum() < LEAST_SHARE * usual:
        logger.warning(
            "head: what is taken lately weighs %.1f interactions at the end of the log, and %.1f at the"
            " moments of validation users; a few interactions are dated long after all others: correct them"
            " or drop them, since they alone are popular in the bundle",
            served.sum(),
            usual,
        )
    return served


def _train_sequence(
    section: HeadSection,
    text: _Array,
    split: Split,
    linear: ItemItemModel,
    judged: EvaluationSet,
    examples: HeadExamples | None,
    user_width: int,
    *,
    seed: int,
    show_progress: bool,
) -> SequencePart:
    """Trains the sequence part, validated beside the linear part with scores that spread as widely."""
    torch.manual_seed(seed)  # of the first weights, too, whatever was drawn before
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
        inverse_propensity=section.inverse_propensity,
    )

    def validate(arrays: dict[str, _Array]) -> float:
        part = SequencePart(**arrays)
        head = RankingHead(linear, part, sequence_weight=sequence_unit(part, judged))
        return mean_ndcg(rank_judged(head, judged), judged)

    arrays = train_sequence_head(
        module,
        histories=split.train_histories(),
        examples=examples,
        validate=validate,
        epochs=section.epochs,
        batch_size=section.batch_size,
        learning_rate=section.learning_rate,
        weight_decay=section.weight_decay,
        seed=seed,
        show_progress=show_progress,
    )
    return SequencePart(**arrays)
