"""Our own systems of the quality benchmark: the one place to add them.

A system is `System(run, fits)`: `run(prepared, seed, trials)` takes a `RankingSet` or an `ImpressionSet`,
chooses on its validation part with at most `trials` trials, learns again where it wants to, and gives an
`Answer` for its test part; `fits(prepared)` gives "" or the reason why it cannot run on a set. Set
`seeded=True` for one that draws random numbers. `quality_judge.lists_of` cuts lists from scores, and
`quality_judge.choose_and_rank` does all of it for a system that is a function of a part and its settings.

`lora_rec_linear_frozen` is the ranking head without its sequence part, `lora_rec_head_frozen` the whole head,
both on the text vectors of the frozen encoder. `lora_rec_towers` is the head on both towers' vectors after
their adapters were trained, `lora_rec_towers_frozen` the same head on the same towers before. Trials are
fits of the linear part; the weights of the parts and the half-life of recent counts need no fit, and the
sequence part, trained once, stays as it was at the best of ten points of its training. Shown lists are
ordered by `lora_rec_candidates_frozen` on the frozen encoder's vectors, and by the two of towers on those of
the user tower.

In a cold set the new items may cost half of the known items' `ndcg@10`, elsewhere what they may by default;
the answer's settings hold what they did cost.
`lora_rec_linear_known` is no competitor there but a measure: the linear part that knows who took the withheld
items before the test, and so says what can be told of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality_judge import Answer, System, lists_of
from quality_sets import ImpressionSet, Prepared, RankingSet
from quality_towers import recipe_of, train, train_shown

from lora_rec.pipeline.candidates import fit_candidates
from lora_rec.pipeline.data import prepare_texts
from lora_rec.pipeline.head import ChosenLinear, FittedHead, fit_head, fit_on_texts
from lora_rec.pipeline.item_item import choose_item_item
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.linear import centre
from lora_rec.rank.new_items import no_new_items
from lora_rec.rank.recent import RecentCounts
from lora_rec.recipe import HeadSection
from lora_rec.train.item_item import prepare_fit

COLD_COST = 0.5
"""New items of a cold set may take half of the known items' `ndcg@10`; what they took stands beside it.
Elsewhere they may take what the library lets them by itself."""


def run_linear(prepared: Prepared, seed: int, trials: int) -> Answer:
    """Fits the head without its sequence part; `seed` changes nothing."""
    assert isinstance(prepared, RankingSet)  # see `_needs_lists`
    return _answer(prepared, _fit_linear(prepared, trials), trials)


def _section(prepared: RankingSet, trials: int, **settings: int) -> HeadSection:
    cost = HeadSection.new_item_cost if prepared.whole is None else COLD_COST
    return HeadSection(n_fits=trials, new_item_cost=cost, **settings)


@lru_cache(maxsize=1)
def _fit_linear(prepared: RankingSet, trials: int) -> FittedHead:
    section = _section(prepared, trials, epochs=0)
    linear = choose_linear_part(prepared, trials)
    return fit_on_texts(section, centre(prepared.item_vectors), prepared.split, linear=linear)


def run_head(prepared: Prepared, seed: int, trials: int) -> Answer:
    """Fits the head with its default settings."""
    assert isinstance(prepared, RankingSet)  # see `_needs_lists`
    linear, text = choose_linear_part(prepared, trials), centre(prepared.item_vectors)
    fitted = fit_on_texts(_section(prepared, trials), text, prepared.split, linear=linear, seed=seed)
    return _answer(prepared, fitted, trials)


def run_candidates(prepared: Prepared, seed: int, trials: int) -> Answer:
    """Chooses on validation, and fits again on all that was shown before the test."""
    assert isinstance(prepared, ImpressionSet)  # see `_needs_impressions`
    return _order(prepared, prepared.item_vectors, seed, trials)


def _order(prepared: ImpressionSet, text: NDArray[np.float32], seed: int, trials: int) -> Answer:
    scorer, choice = fit_candidates(text, prepared.impressions, n_trials=trials, seed=seed)
    shown = prepared.impressions.test
    settings = {"epochs": float(choice.epochs), "rate_prior": choice.rate_prior}
    scores = scorer.scores(shown.histories, shown.candidates)
    return Answer({"scores": scores}, settings, choice.validation, choice.trials)


@lru_cache(maxsize=1)
def choose_linear_part(prepared: RankingSet, n_fits: int) -> ChosenLinear:
    """Chooses the linear part, which draws no numbers, once for all seeds."""
    n_neighbours, text = HeadSection.n_neighbours, centre(prepared.item_vectors)
    return choose_item_item(prepared.split, text_vectors=text, n_neighbours=n_neighbours, n_fits=n_fits)


def run_towers(prepared: Prepared, seed: int, trials: int, *, trained: bool, folder: Path) -> Answer:
    """Fits the head, or what orders shown lists, on the towers' vectors before or after their training."""
    if isinstance(prepared, ImpressionSet):
        return _order(prepared, train_shown(prepared, seed, folder, trained=trained), seed, trials)
    vectors, texts_read = train(prepared, seed, folder, trained=trained)
    fitted = fit_head(
        _section(prepared, trials),
        vectors,
        texts_read,
        prepared.split,
        *prepare_texts(recipe_of(prepared, seed), prepared.dataset, prepared.split),
        seed=seed,
        show_progress=False,
    )
    return _answer(prepared, fitted, trials)


def run_known(prepared: Prepared, seed: int, trials: int) -> Answer:
    """Gives the linear part and the recent counts the withheld items' own interactions, too.

    `seed` changes nothing.
    """
    assert isinstance(prepared, RankingSet) and prepared.whole is not None  # see `_needs_withheld`
    fitted, text = _fit_linear(prepared, trials), centre(prepared.item_vectors)
    whole = prepared.whole.histories(prepared.split.n_users)
    fit = prepare_fit(whole, n_items=prepared.n_items, text_vectors=text)
    table = fit.table(fitted.choice.settings, n_neighbours=HeadSection.n_neighbours)
    head = replace(fitted.head, linear=ItemItemModel(*table, fitted.choice.decay), new_items=no_new_items())
    counts = None
    if fitted.half_life is not None:
        counts = RecentCounts.from_log(prepared.whole, n_items=prepared.n_items)
    return _answer(prepared, replace(fitted, head=head, recent=counts, new_items=None), trials)


def _answer(prepared: RankingSet, fitted: FittedHead, trials: int) -> Answer:
    wanted = prepared.test.evaluation
    lists = lists_of(
        prepared.test,
        lambda start, stop: fitted.scores(wanted.take(np.arange(start, stop))),
        n_items=prepared.n_items,
    )
    return Answer(dict(lists), fitted.numbers(), fitted.validation, trials)


def _needs_lists(prepared: Prepared) -> str:
    return "" if isinstance(prepared, RankingSet) else "ranks the catalogue, not the items that were shown"


def _needs_withheld(prepared: Prepared) -> str:
    cold = isinstance(prepared, RankingSet) and prepared.whole is not None
    return "" if cold else "is for cold sets: it learns of the items that are withheld there"


def _everywhere(prepared: Prepared) -> str:
    return ""


def _needs_impressions(prepared: Prepared) -> str:
    return "" if isinstance(prepared, ImpressionSet) else "orders impressions, and this set has none"


def our_systems(folder: Path) -> dict[str, System]:
    """Gives our systems by name; towers that were trained before lie in the folder."""
    before, after = (partial(run_towers, trained=trained, folder=folder) for trained in (False, True))
    return {
        "lora_rec_linear_frozen": System(run_linear, _needs_lists),
        "lora_rec_head_frozen": System(run_head, _needs_lists, seeded=True),
        "lora_rec_towers_frozen": System(before, _everywhere, seeded=True),
        "lora_rec_towers": System(after, _everywhere, seeded=True),
        "lora_rec_linear_known": System(run_known, _needs_withheld),
        "lora_rec_candidates_frozen": System(run_candidates, _needs_impressions, seeded=True),
    }
