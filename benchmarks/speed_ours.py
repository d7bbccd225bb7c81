"""Trains both towers as the recipe does, in turns with the peers or to the end; called by speed.py."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from quality_sets import RankingSet, prepare_set

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
from stepwise import Turns

CONFIG = Path(__file__).resolve().parents[1] / "recipes" / "configs" / "movielens.yaml"


class TurnsForCheckpoints:
    """Stands where a run keeps its checkpoints, which it asks after each step whether one is due."""

    folder = "none"

    def __init__(self, turns: Turns, interactions: float) -> None:
        """Takes what a step counts as."""
        self._turns, self._interactions = turns, interactions

    def load(self) -> None:
        """There is nothing to go on from."""

    def due(self) -> bool:
        """Waits for the next turn."""
        self._turns.end(self._interactions)
        return False

    def save(self, checkpoint: Any) -> None:
        """Keeps nothing."""


def train(prepared: RankingSet, overrides: list[str], turns: Turns | None) -> dict[str, Any]:
    """Trains; gives vectors, seconds of each stage and, with turns, never returns before they end."""
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from lora_rec.config import load_config
    from lora_rec.pipeline.data import prepare_texts
    from lora_rec.pipeline.objectives import prepare_material
    from lora_rec.pipeline.ranking import choose_linear, fit_linear
    from lora_rec.pipeline.report import Stages
    from lora_rec.pipeline.sources import open_sources
    from lora_rec.pipeline.towers import build_towers, solve_and_encode, teach, train_towers
    from lora_rec.recipe import Recipe

    recipe = load_config(Recipe, CONFIG, overrides=[f"data.root={prepared.folder}", *overrides])
    split, stages = prepared.split, Stages()
    accelerator = Accelerator()
    set_seed(recipe.train.seed)
    with stages("data"):
        examples, texts = prepare_texts(recipe, prepared.dataset, split)
    with stages("EASE"):
        linear = fit_linear(split.train_histories(), choose_linear(split), n_items=split.n_items)
        teacher, known = teach(recipe, linear, examples), split.train_histories()
        material = prepare_material(
            recipe, prepared.dataset, examples, texts, teacher, known=known, log=split.train_log
        )
    with stages("load towers"):
        model = build_towers(recipe, device=accelerator.device)
    with stages("frozen layers"):
        sources = open_sources(recipe, model, texts, accelerator)
    with stages("frozen towers"):
        frozen = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)
    per_step = len(examples.targets.values) / len(examples) * recipe.train.batch_size
    waiting: Any = TurnsForCheckpoints(turns, per_step) if turns else None
    if turns:
        turns.report(**{stage: seconds for stage, seconds in stages.to_json()["seconds"].items()})
        turns.begin()
    began = time.perf_counter()
    train_towers(
        recipe, model, sources, texts, material, prepared.dataset, split, frozen, accelerator, waiting
    )
    seconds = time.perf_counter() - began
    vectors = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)
    return {
        f"{prefix}{name}": array
        for prefix, found in (("", vectors), ("frozen_", frozen))
        for name, array in (
            ("items", found.items),
            ("validation_users", found.users[texts.validation_texts]),
            ("test_users", found.users[texts.test_texts]),
        )
    } | {"seconds": seconds}


def main() -> None:
    """Parses the command line, trains in turns, or to the end with `--output`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the vectors of texts")
    parser.add_argument("--overrides", type=json.loads, required=True, help="of the recipe, as a JSON list")
    parser.add_argument("--output", type=Path, help=".npz to write: unit vectors of test users and items")
    parser.add_argument("--cuda", action="store_true", help="report what the GPU does; accelerate takes it")
    arguments = parser.parse_args()
    turns = None if arguments.output else Turns(cuda=arguments.cuda, counts=arguments.cuda)
    prepared = prepare_set("movielens-100k", arguments.data_root, arguments.cache)
    assert isinstance(prepared, RankingSet)
    found = train(prepared, arguments.overrides, turns)
    if arguments.output:
        np.savez(arguments.output, **found)


if __name__ == "__main__":
    main()
