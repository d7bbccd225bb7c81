"""Chooses the numbers of the ranking head's linear part on validation data."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lora_rec.data.dataset import EvaluationSet, Split
from lora_rec.data.lists import Lists
from lora_rec.errors import TrainingError
from lora_rec.pipeline.judge import JUDGED_K, draw_users, mean_ndcg
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.search import top_k_of
from lora_rec.train.item_item import EXACT_ITEMS, ItemItemSettings, prepare_fit

AXES: dict[str, tuple[float | None, ...]] = {
    "nearness": (2.0, 5.0, 20.0, None),
    "regularisation": (12.5, 25.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0),
    "text_weight": (0.0, 2.0, 8.0, 32.0, 128.0),
}
STARTS = (
    ItemItemSettings(nearness=5.0, regularisation=100.0, text_weight=8.0),
    ItemItemSettings(nearness=None, regularisation=400.0, text_weight=8.0),
)
"""Where order says much and where it says little, the best numbers lie far apart."""
DECAYS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)


@dataclass(frozen=True)
class ItemItemChoice:
    """The numbers that validated best."""

    settings: ItemItemSettings
    decay: float
    validation: float


def choose_item_item(
    split: Split,
    *,
    text_vectors: NDArray[np.float32] | None = None,
    n_neighbours: int,
    n_fits: int,
    show_progress: bool = False,
) -> tuple[ItemItemChoice, ItemItemModel]:
    """Climbs along one number after another, at most `n_fits` fits; gives the choice and its model.

    Args:
        split: fitted on its training items, judged on its validation users.
        text_vectors: (N, D), centred, unit length; None fits without texts.
        n_neighbours: see `rank.item_item`.
        n_fits: a fit inverts a matrix of items by items; all decays are judged on each.
        show_progress: a bar.

    Raises:
        TrainingError: no start can be fitted; a later trial that cannot is left out.
    """
    judged = draw_users(split.validation)
    fit = prepare_fit(split.train_histories(), n_items=split.n_items, text_vectors=text_vectors)
    best: tuple[ItemItemChoice, ItemItemModel] | None = None
    unfit: TrainingError | None = None
    tried: set[ItemItemSettings] = set()
    fixed: dict[str, Any] = {"text_weight": 0.0} if text_vectors is None else {}
    if split.n_items > EXACT_ITEMS:
        fixed["nearness"] = None
    starts = dict.fromkeys(replace(start, **fixed) for start in STARTS)
    with tqdm(total=n_fits, desc="linear part", disable=not show_progress) as bar:
        waiting: Iterator[ItemItemSettings] = iter(starts)
        while len(tried) < n_fits and (settings := next(waiting, None)) is not None:
            tried.add(settings)
            try:
                table = fit.table(settings, n_neighbours=n_neighbours)
            except TrainingError as error:
                unfit = error
            else:
                for decay in DECAYS:
                    model = ItemItemModel(*table, decay)
                    score = _judge(model, judged)
                    if best is None or score > best[0].validation:
                        best = (ItemItemChoice(settings, decay, score), model)
            bar.update()
            if best is not None:
                if tried.issuperset(starts):
                    waiting = _neighbours(best[0].settings, tried, axes=AXES.keys() - fixed)
                bar.set_postfix(validation=f"{best[0].validation:.4f}", **asdict(best[0].settings))
    if best is None:
        assert unfit is not None  # there are starts
        raise unfit
    return best


def _neighbours(
    best: ItemItemSettings, tried: set[ItemItemSettings], *, axes: Set[str]
) -> Iterator[ItemItemSettings]:
    """Gives the settings that differ from the best by one step and have not been tried."""
    for name, values in AXES.items():
        if name not in axes:
            continue
        place = values.index(getattr(best, name))
        for other in (place + 1, place - 1):
            if 0 <= other < len(values):
                changed: dict[str, Any] = {name: values[other]}
                if (settings := replace(best, **changed)) not in tried:
                    yield settings


def _judge(model: ItemItemModel, judged: EvaluationSet) -> float:
    return mean_ndcg(rank_by(model, judged.histories, k=JUDGED_K), judged)


def rank_by(model: ItemItemModel, histories: Lists, *, k: int) -> NDArray[np.int64]:
    """Gives the lists (U, K) of an item-item model alone, outside each history."""
    lists, _ = top_k_of(
        lambda rows: model.scores(histories.take(rows)),
        n_users=len(histories),
        n_items=len(model.neighbours),
        k=k,
        exclude=histories,
    )
    return lists
