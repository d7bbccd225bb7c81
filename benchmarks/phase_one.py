"""Phase one of tasks.py: adapters that read the domain without labels before phase two begins."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lora_rec.config import build_config
from lora_rec.pretrain_recipe import PretrainRecipe

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 3
PHASE_ONE: dict[str, dict[str, dict[str, Any]]] = {
    "after language modelling": {"user_tower": {"mlm": {}}, "item_tower": {"clm": {}}},
    "after views": {"user_tower": {"history_views": {}}, "item_tower": {"item_views": {}}},
    "after nsp": {"user_tower": {"nsp": {"pairs_per_sequence": 5}}},
    "after category": {"user_tower": {"category": {}}, "item_tower": {"category": {}}},
    "after entities": {"user_tower": {"entities": {}}, "item_tower": {"entities": {}}},
    "after views of 8 layers, merged": {"item_tower": {"item_views": {}}},
}
"""What each tower learns first; one that is not named begins phase two as in `base`."""
MERGED = {"after views of 8 layers, merged": 8}
"""Last layers that carry the first adapter, which is merged: phase two puts its own on what that gives."""
FIELDS: dict[str, dict[str, dict[str, Any]]] = {
    "movielens-100k": {
        "category": {"field": "genres", "separator": ", "},
        "entities": {"columns": ["genres", "year"], "separator": ", "},
    },
    "mind": {"category": {"field": "category"}},
}
"""The fields that a task tells from the rest of the text, or finds in it; Online Retail has a title alone."""


def phase_one_of(task: str, name: str, tree: dict[str, Any], folder: Path) -> dict[str, PretrainRecipe]:
    """Gives the recipe of each tower that learns something first.

    Args:
        task: of `PHASE_ONE`.
        name: of the set.
        tree: the settings of phase two as `base` has them.
        folder: where adapters are kept, each under a name that says its settings.
    """
    found = {}
    for place, tasks in PHASE_ONE[task].items():
        chosen = {kind: own | FIELDS.get(name, {}).get(kind, {}) for kind, own in tasks.items()}
        seed = tree["train"]["seed"]
        tower = tree[place] | ({"trained_layers": MERGED[task]} if task in MERGED else {})
        settings = {"text": tree["text"], "tower": tower, "tasks": chosen}
        settings["train"] = {"epochs": EPOCHS, "seed": seed}
        digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
        output = folder / f"phase-one-{name}-{'-'.join(chosen)}-{seed}-{digest}"
        settings |= {"data": tree["data"], "output": str(output)}
        found[place] = build_config(PretrainRecipe, settings)
    return found


def learn_phase_one(recipe: PretrainRecipe) -> float:
    """Runs a recipe, unless its adapter is there, and gives the seconds that it trained."""
    output = Path(recipe.output)
    if not (output / "pretrain.json").exists():
        config = output.with_suffix(".yaml")
        config.write_text(recipe.to_yaml(), encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(ROOT / "recipes" / "pretrain.py"), str(config)]
        with open(output.with_suffix(".log"), "w") as log:
            subprocess.run(command, check=True, env=environment, stdout=log, stderr=log)
    facts = json.loads((output / "pretrain.json").read_text(encoding="utf-8"))
    return float(facts["cost"]["seconds"]["train"])


def start_of(task: str, first: PretrainRecipe) -> dict[str, Any]:
    """Gives the settings of a tower that goes on: with the same adapter, or another one on a merged model."""
    if task in MERGED:
        return {"backbone": _merged(first)}
    return {"start_from": first.output, "lora_rank": None}


def merge_phase_one(recipe: PretrainRecipe) -> None:
    """Merges what phase one learned, unless that is done."""
    from lora_rec.pipeline.pretrain_merge import merge_pretrained

    if not Path(_merged(recipe)).exists():
        merge_pretrained(recipe.output, _merged(recipe))


def _merged(recipe: PretrainRecipe) -> str:
    return f"{recipe.output}-merged"
