"""Trains both towers on a set of the quality benchmark, as its recipe in recipes/configs says.

Towers, texts and training are the recipe's, the split is the benchmark's. What was trained last is kept, so
that the system before training and the one after it share a training: they are one call with one seed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality_sets import FOLDERS, ImpressionSet, Prepared, RankingSet, base_of

from lora_rec.config import load_config
from lora_rec.data.examples import Examples
from lora_rec.pipeline.data import Texts, prepare_texts
from lora_rec.pipeline.objectives import prepare_material
from lora_rec.pipeline.ranking import choose_linear, fit_linear
from lora_rec.pipeline.shown import (
    prepare_shown,
    prepare_shown_material,
    read_item_texts,
    teach_shown,
    train_on_histories,
)
from lora_rec.pipeline.sources import open_sources
from lora_rec.pipeline.towers import Vectors, build_towers, read_items, solve_and_encode, teach, train_towers
from lora_rec.recipe import Recipe

CONFIGS = Path(__file__).resolve().parents[1] / "recipes" / "configs"
RECIPES = {name: f"{name.removesuffix('-100k')}.yaml" for name in FOLDERS}
_Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Towers:
    """What the head reads of both towers, before and after training."""

    recipe: Recipe
    examples: Examples
    texts: Texts
    frozen: tuple[Vectors, _Array]
    """Vectors, and the item texts as the user tower reads them."""
    trained: tuple[Vectors, _Array]
    best_epoch: int
    """0 where training did not help on validation."""


def recipe_of(prepared: Prepared, seed: int) -> Recipe:
    """Gives the recipe of a set with another seed."""
    overrides = [f"data.root={prepared.folder}", f"train.seed={seed}"]
    return load_config(Recipe, CONFIGS / RECIPES[base_of(prepared.name)], overrides=overrides)


@lru_cache(maxsize=1)
def train(prepared: RankingSet, seed: int) -> Towers:
    """Trains both towers as `recipes/two_tower.py` does."""
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    logging.getLogger("lora_rec").setLevel(logging.INFO)
    recipe, split = recipe_of(prepared, seed), prepared.split
    accelerator = Accelerator()
    set_seed(seed)
    examples, texts = prepare_texts(recipe, prepared.dataset, split)
    linear = fit_linear(split.train_histories(), choose_linear(split), n_items=split.n_items)
    teacher = teach(recipe, linear, examples)
    model = build_towers(recipe, device=accelerator.device)
    sources = open_sources(recipe, model, texts, accelerator)
    frozen = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)
    before = (frozen, read_items(recipe, model, sources, accelerator))
    material = prepare_material(
        recipe, prepared.dataset, examples, texts, teacher, known=split.train_histories()
    )
    result = train_towers(
        recipe, model, sources, texts, material, prepared.dataset, split, frozen, accelerator
    )
    vectors = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)
    after = (vectors, read_items(recipe, model, sources, accelerator))
    return Towers(recipe, examples, texts, before, after, result.best_epoch)


@lru_cache(maxsize=1)
def train_shown(prepared: ImpressionSet, seed: int) -> tuple[_Array, _Array]:
    """Trains both towers as `recipes/shown_lists.py` does.

    Returns:
        The item texts as the user tower reads them, before and after, (N, H) each.
    """
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    logging.getLogger("lora_rec").setLevel(logging.INFO)
    recipe = recipe_of(prepared, seed)
    accelerator = Accelerator()
    set_seed(seed)
    data = replace(prepare_shown(recipe), split=prepared.impressions)
    teacher = teach_shown(recipe, data)
    material = prepare_shown_material(recipe, data, teacher)
    model = build_towers(recipe, device=accelerator.device)
    sources = open_sources(recipe, model, data.texts, accelerator)
    vectors = solve_and_encode(recipe, model, sources, data.texts, teacher, accelerator)
    frozen = read_item_texts(recipe, model, sources, accelerator)
    train_on_histories(recipe, model, sources, data, material, vectors, frozen, accelerator)
    return frozen, read_item_texts(recipe, model, sources, accelerator)
