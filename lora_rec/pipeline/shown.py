"""Shown lists from a recipe: towers that read the items, and the scorer that orders what was shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Dataset
from lora_rec.data.examples import Examples, draw_examples
from lora_rec.data.impressions import Impressions, ImpressionSplit, join_impressions, split_impressions
from lora_rec.data.lists import Lists
from lora_rec.data.publishers import load_published
from lora_rec.data.splits import find_last_day, find_quantiles
from lora_rec.data_section import DataSection
from lora_rec.errors import DataError, RecipeError
from lora_rec.metrics import impression_auc, ndcg_at_k, pad_lists
from lora_rec.pipeline.candidates import CandidateChoice, fit_candidates, last_histories
from lora_rec.pipeline.data import Texts, number_texts
from lora_rec.pipeline.judge import JUDGED_K
from lora_rec.pipeline.objectives import prepare_material, telling_lists
from lora_rec.pipeline.ranking import LinearChoice, fit_linear
from lora_rec.pipeline.sources import Sources
from lora_rec.pipeline.towers import Vectors, read_states, teach, train_adapters
from lora_rec.rank.candidates import CandidateScorer, unit_rows
from lora_rec.recipe import HeadSection, RankingSection, Recipe
from lora_rec.text.templates import render_histories, render_items
from lora_rec.towers.two_tower import TwoTower
from lora_rec.train.candidates import check_periods, count_clicks
from lora_rec.train.checkpoint import Checkpoints
from lora_rec.train.loop import TrainingResult
from lora_rec.train.objectives import Material, ShownLists
from lora_rec.train.projections import Teacher
from lora_rec.train.shared import same_everywhere
from lora_rec.train.text_match import train_text_match

if TYPE_CHECKING:
    from accelerate import Accelerator

_Array = NDArray[np.float32]
EASE = LinearChoice(regularisation=200.0, decay=0.9, validation=0.0)
"""Of the model that the projections are solved onto; shown lists are never ranked by it."""
RATE_PRIOR = 30.0
"""Of the baseline that orders by click rates alone."""


@dataclass(frozen=True, eq=False)
class ShownData:
    """A log of shown lists, cut in time, and what the towers learn from and read."""

    dataset: Dataset
    split: ImpressionSplit
    histories: Lists
    """The newest history of each user before validation."""
    examples: Examples
    """Users are rows of `histories`."""
    texts: Texts
    """Of the items, and of the examples' histories."""
    lists: ShownLists | None = None
    """Training lists, where the objective `listwise` learns from them."""


def prepare_shown(recipe: Recipe) -> ShownData:
    """Reads and cuts the lists of a recipe, draws examples from the histories, and writes texts down.

    Raises:
        RecipeError: settings that have no effect on shown lists, all in one message.
        DataError: the source has no shown lists, or too short a log of them.
    """
    _refuse_settings(recipe)
    section = recipe.data
    if section.source in ("files", "movielens-small"):
        raise DataError(_no_lists(section.source))
    published = load_published(section.source, section.root, variant=section.variant)
    if published.impressions is None:
        raise DataError(_no_lists(section.source))
    dataset, split = published.dataset, split_shown(section, published.impressions)
    _refuse_short_logs(split)
    histories = last_histories(split.train)
    examples = draw_examples(
        histories,
        per_user=recipe.train.examples_per_user,
        history_length=recipe.text.history_length,
        n_targets=recipe.train.targets_per_example,
        seed=recipe.train.seed,
    )
    fields, text = dataset.item_fields, recipe.text
    items = render_items(text.item_template, fields, where="text.item_template")
    in_history = render_items(text.history_item_template, fields, where="text.history_item_template")
    learns_from_lists = recipe.objectives.listwise > 0
    train = telling_lists(split.train) if learns_from_lists else split.train.take([])
    written = [
        written
        for part in (examples.histories, train.histories)
        for written in render_histories(
            part, in_history, length=text.history_length, newest_first=text.newest_first
        )
    ]
    distinct, numbers = number_texts(written)
    none, before_lists = np.empty(0, np.int64), numbers[len(examples) :]
    texts = Texts(items, distinct, numbers[: len(examples)], none, none, before_lists)
    lists = ShownLists(before_lists, train.candidates, train.clicks) if learns_from_lists else None
    return ShownData(dataset, split, histories, examples, texts, lists)


def _no_lists(source: str) -> str:
    return (
        f"data.source: {source!r} says who took what, not what was shown; bring a log into the two files of"
        " MIND (behaviors.tsv, news.tsv) with source 'mind', or run recipes/two_tower.py"
    )


def _refuse_settings(recipe: Recipe) -> None:
    """Refuses what only the run that ranks a catalogue reads."""
    defaults = {"head": HeadSection(), "ranking": RankingSection()}
    wrong = [
        f"{name}: has no effect on shown lists; leave it out"
        for name, default in defaults.items()
        if getattr(recipe, name) != default
    ]
    if recipe.objectives.judged_by != "lists":
        wrong.append("objectives.judged_by: shown lists are judged by their AUC; leave it out")
    if recipe.text.is_social:
        wrong.append("text.friends_length, text.n_shared_tags: have no effect on shown lists; leave them out")
    if recipe.data.min_interactions > 1:
        wrong.append("data.min_interactions: shown lists are kept whole; leave it out")
    if recipe.data.split not in ("last_day", "time"):
        wrong.append(
            f"data.split: {recipe.data.split!r} cuts each user's items, and shown lists are cut at a moment;"
            " set last_day or time"
        )
    if wrong:
        raise RecipeError("\n".join(wrong))


def split_shown(section: DataSection, impressions: Impressions) -> ImpressionSplit:
    """Cuts the lists at the moments that the section asks for."""
    if section.split == "last_day":
        start, end = find_last_day(impressions.times)
    else:
        shares = {"validation": section.validation_quantile, "test": section.test_quantile}
        start, end = find_quantiles(impressions.times, **shares)
    try:
        return split_impressions(impressions, validation_from=start, test_from=end)
    except DataError as error:
        raise DataError(
            f"data.split: {section.split!r} leaves a part without lists; give a longer log, or"
            " data.split=time with other data.validation_quantile and data.test_quantile"
        ) from error


def _refuse_short_logs(split: ImpressionSplit) -> None:
    """Refuses at once what the scorer of shown lists would refuse after the adapters were trained."""
    for name, part in (("validation", split.validation), ("test", split.test)):
        if not part.tells.any():
            raise DataError(
                f"data.split: none of {len(part):,} lists of the {name} part has a click and an item without,"
                " so nothing can be judged; give a longer log, or another data.split"
            )
    check_periods(split.train)


def teach_shown(recipe: Recipe, data: ShownData) -> Teacher:
    """Gives vectors of a linear model of the histories, onto which the projections are solved."""
    return teach(recipe, fit_linear(data.histories, EASE, n_items=data.dataset.n_items), data.examples)


def prepare_shown_material(recipe: Recipe, data: ShownData, teacher: Teacher) -> Material:
    """Gathers what the towers learn from; see `prepare_material` for errors."""
    return prepare_material(
        recipe,
        data.dataset,
        data.examples,
        data.texts,
        teacher,
        known=data.histories,
        log=None,
        shown=data.lists,
    )


def read_item_texts(recipe: Recipe, model: TwoTower, sources: Sources, accelerator: Accelerator) -> _Array:
    """Gives (N, H) unit vectors of item texts, as `LoadedTowers.read_items` gives those of new ones."""
    return unit_rows(read_states(recipe, model, sources, accelerator))


def train_on_histories(
    recipe: Recipe,
    model: TwoTower,
    sources: Sources,
    data: ShownData,
    material: Material,
    vectors: Vectors,
    frozen: _Array,
    accelerator: Accelerator,
    checkpoints: Checkpoints | None = None,
) -> TrainingResult:
    """Trains the adapters on who read what; the model ends where its vectors order validation lists best.

    Args:
        recipe: of the run.
        model: both towers.
        sources: their texts.
        data: of `prepare_shown`.
        material: of `prepare_shown_material`.
        vectors: of both towers before.
        frozen: (N, H), of `read_item_texts` before.
        accelerator: of accelerate.
        checkpoints: where a stopped run goes on from; None keeps none.
    """
    shown = data.split.validation

    def score(text_vectors: _Array) -> float:
        def match() -> float:
            scorer = train_text_match(text_vectors, data.histories, seed=recipe.train.seed)
            return judge_shown(scorer.scores(shown.histories, shown.candidates), shown)["auc"]

        return same_everywhere(accelerator, match)

    return train_adapters(
        recipe,
        model,
        sources,
        data.texts,
        material,
        accelerator,
        start=vectors,
        start_validation=score(frozen),
        validate=lambda vectors: score(read_item_texts(recipe, model, sources, accelerator)),
        checkpoints=checkpoints,
    )


@dataclass(frozen=True, eq=False)
class ShownComparison:
    """Every system's order of the test lists, judged alike."""

    split: ImpressionSplit
    seed: int
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    chosen: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add_click_rate(self, *, n_items: int) -> None:
        """Adds the order by how often an item was clicked when it was shown before."""
        shown = self.split.test
        before = join_impressions([self.split.train, self.split.validation])
        lift = count_clicks(before, n_items=n_items, rate_prior=RATE_PRIOR).log_lift
        self.rows["click_rate"] = judge_shown(lift[shown.candidates.values], shown)

    def add_scorer(self, name: str, text_vectors: _Array) -> CandidateScorer:
        """Fits the scorer on text vectors (N, H), adds its order, and gives it."""
        choice: CandidateChoice
        scorer, choice = fit_candidates(text_vectors, self.split, seed=self.seed, show_progress=True)
        shown = self.split.test
        self.rows[name] = judge_shown(scorer.scores(shown.histories, shown.candidates), shown)
        self.chosen[name] = asdict(choice)
        return scorer


def judge_shown(scores: NDArray[np.floating], shown: Impressions) -> dict[str, float]:
    """Gives mean `auc` and `ndcg@10` within each list that has a click and an item without.

    Args:
        scores: one per entry of `shown.candidates.values`; equal ones stay in the order that was shown.
        shown: judged lists.

    Raises:
        DataError: no list tells anything.
    """
    offsets = shown.candidates.offsets
    auc = impression_auc(scores, shown.clicks, offsets)
    tells = np.flatnonzero(~np.isnan(auc))
    if not len(tells):
        raise DataError("impressions: no judged list has a click and an item without; give a longer log")
    parts = [slice(offsets[row], offsets[row + 1]) for row in tells]
    lists = pad_lists([np.argsort(-scores[part], kind="stable") for part in parts], k=JUDGED_K)
    ndcg = ndcg_at_k(lists, [np.flatnonzero(shown.clicks[part]) for part in parts], k=JUDGED_K)
    return {"auc": float(auc[tells].mean()), f"ndcg@{JUDGED_K}": float(ndcg.mean())}
