"""The checkpoints of a recipe's run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from lora_rec.pipeline.data import Texts
from lora_rec.recipe import Recipe
from lora_rec.towers.two_tower import TwoTower
from lora_rec.train.checkpoint import Checkpoints
from lora_rec.train.objectives import Material

SECTIONS = ("text", "user_tower", "item_tower", "train", "objectives", "regularisation")
"""Of the recipe: what decides how the towers train. The head and the lists are made anew in any case."""


def open_checkpoints(
    recipe: Recipe, model: TwoTower, texts: Texts, material: Material, accelerator: Accelerator
) -> Checkpoints:
    """Opens the checkpoints beside a recipe's output.

    Args:
        recipe: its settings, with those below, say whether an earlier run was the same.
        model: both towers; their bases are known by their fingerprints.
        texts: that they read.
        material: that they learn from.
        accelerator: the main process writes.

    Raises:
        TrainingError: the folder cannot be written.
    """
    output = Path(recipe.output)
    settings = asdict(recipe)
    run = _flat({name: settings[name] for name in SECTIONS})
    run["data"] = _digest(texts, material)
    for name in ("user_tower", "item_tower"):
        run[f"{name} base"] = getattr(model, name).backbone_info.fingerprint
    return Checkpoints(
        output.parent / f"{output.name}.checkpoints",
        run=run,
        every_seconds=recipe.checkpoint.every_seconds,
        resume=recipe.checkpoint.resume,
        writes=accelerator.is_main_process,
    )


def _digest(texts: Texts, material: Material) -> str:
    """Tells the same texts, examples and labels again."""
    examples = material.examples
    digest = hashlib.sha256()
    for part in (texts.users, texts.items):
        for text in part:
            digest.update(f"{len(text)}:{text}".encode())
    histories, targets = examples.histories, examples.targets
    arrays = (texts.example_texts, examples.users, histories.values, histories.offsets)
    labels = [material.liked] + [label.classes for label in material.item_labels]
    labels += [label.tags for label in material.item_labels]
    if material.shown is not None:
        shown = material.shown
        labels += [shown.texts, shown.candidates.values, shown.candidates.offsets, shown.clicks]
    for array in (
        *arrays,
        targets.values,
        targets.offsets,
        *(found for found in labels if found is not None),
    ):
        digest.update(f"{len(array)};".encode() + array.astype("<i8").tobytes())
    return digest.hexdigest()


def _flat(tree: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{where}{name}.") if isinstance(value, dict) else {f"{where}{name}": value}
    return flat
