"""Trains both towers on a set of the quality benchmark, as its recipe in recipes/configs says.

Towers, texts and training are the recipe's, the split is the benchmark's. What the towers made of the texts
is kept in a file, since training takes most of a run: the systems before and after it share one training, and
another head can be fitted on both.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from quality_search import VERSION
from quality_sets import FOLDERS, ImpressionSet, Prepared, RankingSet, base_of

from lora_rec.config import load_config
from lora_rec.pipeline.data import prepare_texts
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
_Set = TypeVar("_Set", RankingSet, ImpressionSet)


def recipe_of(prepared: Prepared, seed: int, *others: str) -> Recipe:
    """Gives the recipe of a set with another seed, and other settings."""
    overrides = [f"data.root={prepared.folder}", f"train.seed={seed}", *others]
    return load_config(Recipe, CONFIGS / RECIPES[base_of(prepared.name)], overrides=overrides)


def train(prepared: RankingSet, seed: int, folder: Path, *, trained: bool) -> tuple[Vectors, _Array]:
    """Gives what the head reads of both towers, trained as `recipes/two_tower.py` does, or before.

    Returns:
        Vectors, and the item texts as the user tower reads them, (N, H).
    """
    kept = _read_or_make(prepared, recipe_of(prepared, seed), folder, _train_on_split)
    state = "trained" if trained else "frozen"
    return Vectors(kept[f"{state}_items"], kept[f"{state}_users"]), kept[f"{state}_texts"]


def train_shown(prepared: ImpressionSet, seed: int, folder: Path, *, trained: bool) -> _Array:
    """Gives item texts as the user tower reads them, (N, H), trained as `recipes/shown_lists.py` does."""
    kept = _read_or_make(prepared, recipe_of(prepared, seed), folder, _train_on_lists)
    return kept["trained_texts" if trained else "frozen_texts"]


def train_without_friends(prepared: RankingSet, seed: int, folder: Path) -> _Array:
    """Gives item texts as the user tower reads them, (N, H), when no text of its training named a friend."""
    recipe = recipe_of(prepared, seed, "text.friends_length=0", "text.n_shared_tags=0")
    return _read_or_make(prepared, recipe, folder, _train_on_split)["trained_texts"]


def _read_or_make(
    prepared: _Set, recipe: Recipe, folder: Path, make: Callable[[_Set, Recipe], dict[str, _Array]]
) -> dict[str, _Array]:
    """Reads what an earlier training with these settings left; after a change of the code, delete it."""
    settings = f"{VERSION}{recipe.to_yaml()}".replace(str(prepared.folder), "")
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    file = folder / f"towers-{prepared.name}-{recipe.train.seed}-{digest}.npz"
    if not file.exists():
        logging.getLogger("lora_rec").setLevel(logging.INFO)
        scratch = file.with_suffix(f".{os.getpid()}.npz")
        np.savez(scratch, **make(prepared, recipe))  # type: ignore[arg-type]
        os.replace(scratch, file)
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _train_on_split(prepared: RankingSet, recipe: Recipe) -> dict[str, _Array]:
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    split = prepared.split
    accelerator = Accelerator()
    set_seed(recipe.train.seed)
    examples, texts = prepare_texts(recipe, prepared.dataset, split)
    linear = fit_linear(split.train_histories(), choose_linear(split), n_items=split.n_items)
    teacher = teach(recipe, linear, examples)
    model = build_towers(recipe, device=accelerator.device)
    sources = open_sources(recipe, model, texts, accelerator)

    def read(vectors: Vectors, state: str) -> dict[str, _Array]:
        seen = {"items": vectors.items, "users": vectors.users}
        seen["texts"] = read_items(recipe, model, sources, accelerator)
        return {f"{state}_{name}": values for name, values in seen.items()}

    frozen = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)
    before = read(frozen, "frozen")
    material = prepare_material(
        recipe, prepared.dataset, examples, texts, teacher, known=split.train_histories(), log=split.train_log
    )
    train_towers(recipe, model, sources, texts, material, prepared.dataset, split, frozen, accelerator)
    vectors = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)
    return before | read(vectors, "trained")


def _train_on_lists(prepared: ImpressionSet, recipe: Recipe) -> dict[str, _Array]:
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    accelerator = Accelerator()
    set_seed(recipe.train.seed)
    data = replace(prepare_shown(recipe), split=prepared.impressions)
    teacher = teach_shown(recipe, data)
    material = prepare_shown_material(recipe, data, teacher)
    model = build_towers(recipe, device=accelerator.device)
    sources = open_sources(recipe, model, data.texts, accelerator)
    vectors = solve_and_encode(recipe, model, sources, data.texts, teacher, accelerator)
    frozen = read_item_texts(recipe, model, sources, accelerator)
    train_on_histories(recipe, model, sources, data, material, vectors, frozen, accelerator)
    return {
        "frozen_texts": frozen,
        "trained_texts": read_item_texts(recipe, model, sources, accelerator),
    }
