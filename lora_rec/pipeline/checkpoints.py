"""The checkpoints of a recipe's run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from accelerate import Accelerator
from numpy.typing import NDArray

from lora_rec.bundle import place_of
from lora_rec.pipeline.data import Texts
from lora_rec.recipe import CheckpointSection, Recipe
from lora_rec.towers.two_tower import Tower, TwoTower
from lora_rec.train.checkpoint import Checkpoints
from lora_rec.train.objectives import Material

SECTIONS = ("text", "user_tower", "item_tower", "train", "objectives", "regularisation")
"""Of the recipe: what decides how the towers train. The head and the lists are made anew in any case."""


_FREE = re.compile(r"train\.(token_budget|prefix_cache)|(\w+_)?tower\.(backbone|revision)")
"""Settings that a run may go on with changed: they say how much memory a step takes, not what it does, and
where a base lies, which its fingerprint tells again."""


def open_checkpoints(
    recipe: Recipe,
    model: TwoTower,
    texts: Texts,
    material: Material,
    accelerator: Accelerator,
    *,
    judged: Sequence[NDArray[Any]],
) -> Checkpoints:
    """Opens the checkpoints beside a recipe's output.

    Args:
        recipe: its settings, with those below, say whether an earlier run was the same.
        model: both towers; their bases are known by their fingerprints.
        texts: that they read.
        material: that they learn from.
        accelerator: the main process writes.
        judged: what epochs are chosen by on validation data.

    Raises:
        TrainingError: the folder cannot be written.
    """
    settings = asdict(recipe)
    return open_run(
        recipe.output,
        recipe.checkpoint,
        {name: settings[name] for name in SECTIONS},
        digest=_digest(texts, material, judged),
        towers=model.towers,
        accelerator=accelerator,
    )


def open_run(
    output: str,
    section: CheckpointSection,
    settings: Mapping[str, Any],
    *,
    digest: str,
    towers: Mapping[str, Tower],
    accelerator: Accelerator,
) -> Checkpoints:
    """Opens the checkpoints of any training of towers.

    Args:
        output: of the run; they lie beside it.
        section: of the recipe.
        settings: that decide how the towers train, nested.
        digest: of the data.
        towers: known by the fingerprints of their bases, by what `auto` precision became, and by what they
            start from.
        accelerator: the main process writes.

    Raises:
        TrainingError: the folder cannot be written.
    """
    bases = {}
    for name, tower in towers.items():
        bases[f"{name} base"] = tower.backbone_info.fingerprint
        bases[f"{name} precision"] = tower.backbone_info.precision.key
        if tower.adapter.is_continued:
            bases[f"{name} start"] = _digest_of_start(tower)
    place = place_of(output)
    return Checkpoints(
        place.parent / f"{place.name}.checkpoints",
        run={name: value for name, value in _flat(settings).items() if not _FREE.fullmatch(name)}
        | {"data": digest}
        | bases,
        every_seconds=section.every_seconds,
        resume=section.resume,
        writes=accelerator.is_main_process,
    )


def _digest_of_start(tower: Tower) -> str:
    """Gives the hash of an adapter that was learned before."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tower.adapter.trained_parameters().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _digest(texts: Texts, material: Material, judged: Sequence[NDArray[Any]]) -> str:
    """Tells the same texts, examples and labels again, and what the teacher was made from.

    The teacher's own numbers differ in their last bits from machine to machine.
    """
    examples, known = material.examples, material.known
    digest = hashlib.sha256()
    for part in (texts.users, texts.items):
        for text in part:
            digest.update(f"{len(text)}:{text}".encode())
    histories, targets = examples.histories, examples.targets
    arrays = [texts.example_texts, examples.users, histories.values, histories.offsets]
    arrays += [targets.values, targets.offsets, known.values, known.offsets, *judged]
    labels = [material.liked] + [label.classes for label in material.item_labels]
    labels += [label.tags for label in material.item_labels]
    if material.shown is not None:
        shown = material.shown
        labels += [shown.texts, shown.candidates.values, shown.candidates.offsets, shown.clicks]
    for array in (*arrays, *(found for found in labels if found is not None)):
        digest.update(f"{len(array)};".encode() + array.astype("<i8").tobytes())
    if known.strengths is not None:
        digest.update(known.strengths.astype("<f4").tobytes())
    return digest.hexdigest()


def _flat(tree: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{where}{name}.") if isinstance(value, dict) else {f"{where}{name}": value}
    return flat
