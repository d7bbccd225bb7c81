"""Our own systems of the quality benchmark: the one place to add them.

A system is `System(run, fits)`: `run(prepared, seed, trials)` takes a `RankingSet` or an `ImpressionSet`,
chooses on its validation part with at most `trials` trials, learns again where it wants to, and gives an
`Answer` for its test part; `fits(prepared)` gives "" or the reason why it cannot run on a set. Set
`seeded=True` for one that draws random numbers. `quality_judge.lists_of` cuts lists from scores, and
`quality_judge.choose_and_rank` does all of it for a system that is a function of a part and its settings.

`lora_rec_linear_frozen` is the linear part of the ranking head, `lora_rec_head_frozen` the whole head, both
on the text vectors of the frozen encoder: what trained adapters must beat.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from quality_judge import Answer, System, lists_of
from quality_sets import Prepared, RankingSet

from lora_rec.data.lists import Lists
from lora_rec.pipeline.item_item import ItemItemChoice, choose_item_item
from lora_rec.pipeline.ranking import fit_on_texts
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.linear import centre
from lora_rec.recipe import HeadSection
from lora_rec.train.item_item import prepare_fit


def run_linear(prepared: Prepared, seed: int, trials: int) -> Answer:
    """Chooses on validation and fits again on all that lies before the test; `seed` changes nothing."""
    assert isinstance(prepared, RankingSet)  # see `_needs_lists`
    text, n_neighbours = centre(prepared.item_vectors), HeadSection.n_neighbours
    choice, _ = choose_item_item(prepared.split, text_vectors=text, n_neighbours=n_neighbours, n_fits=trials)
    # In a cold set the split lacks what was withheld for validation alone; the test part has it.
    fit = prepare_fit(prepared.test.fit, n_items=prepared.n_items, text_vectors=text)
    model = ItemItemModel(*fit.table(choice.settings, n_neighbours=n_neighbours), choice.decay)
    return Answer(_lists(prepared, model), _settings(choice), choice.validation, trials)


def run_head(prepared: Prepared, seed: int, trials: int) -> Answer:
    """Fits the head with its default settings; trials are those of the linear part."""
    assert isinstance(prepared, RankingSet)
    fitted = fit_on_texts(
        HeadSection(n_fits=trials), centre(prepared.item_vectors), prepared.split, seed=seed
    )
    settings = _settings(fitted.choice) | {"sequence_weight": fitted.head.sequence_weight}
    return Answer(_lists(prepared, fitted.head), settings, fitted.validation, trials)


def _lists(prepared: RankingSet, model: object) -> dict[str, NDArray[np.generic]]:
    histories: Lists = prepared.test.evaluation.histories
    score = getattr(model, "scores")  # noqa: B009
    return lists_of(
        prepared.test,
        lambda start, stop: score(histories.take(np.arange(start, stop))),
        n_items=prepared.n_items,
    )


def _settings(choice: ItemItemChoice) -> dict[str, float | None]:
    return asdict(choice.settings) | {"decay": choice.decay}


def _needs_lists(prepared: Prepared) -> str:
    return "" if isinstance(prepared, RankingSet) else "ranks the catalogue, not the items that were shown"


OURS: dict[str, System] = {
    "lora_rec_linear_frozen": System(run_linear, _needs_lists),
    "lora_rec_head_frozen": System(run_head, _needs_lists, seeded=True),
}
