"""Data whose labels are obvious, and runs of every objective on them."""

import numpy as np
from accelerate import Accelerator
from accelerate.utils import set_seed
from tiny_names import TITLES

from lora_rec.config import build_config
from lora_rec.pipeline.checkpoints import open_checkpoints
from lora_rec.pipeline.data import prepare_data, prepare_texts
from lora_rec.pipeline.objectives import prepare_material
from lora_rec.pipeline.ranking import LinearChoice, fit_linear
from lora_rec.pipeline.shown import (
    prepare_shown,
    prepare_shown_material,
    read_item_texts,
    teach_shown,
    train_on_histories,
)
from lora_rec.pipeline.sources import open_sources
from lora_rec.pipeline.towers import build_towers, solve_and_encode, teach, train_towers
from lora_rec.recipe import Recipe

SECTIONS = {
    "softmax": {"softmax": 1},
    "alignment": {"alignment": 1},
    "sampled_softmax": {"sampled_softmax": 1},
    "bpr": {"bpr": 1},
    "listwise": {"listwise": 1},
    "interest": {"interest": 1, "judged_by": "interest"},
    "item_features": {
        "item_features": 1,
        "class_fields": ["kind"],
        "tag_fields": ["tags"],
        "band_fields": ["price", "rating"],
    },
    "mined": {"softmax": 1, "sampled_softmax": 1, "bpr": 1, "mined_negatives": 2, "mined_pool": 4},
    "uncertain": {
        "softmax": 0.5,
        "interest": 2,
        "item_features": 1,
        "class_fields": ["kind"],
        "weighting": "uncertainty",
    },
    "everything": {
        "softmax": 1,
        "alignment": 1,
        "sampled_softmax": 1,
        "bpr": 1,
        "interest": 1,
        "item_features": 1,
        "tag_fields": ["tags"],
        "mined_negatives": 2,
        "mined_pool": 4,
        "weighting": "uncertainty",
    },
}
"""By what is tested: the recipe's section; what is not named is off."""


def write_rated(folder):
    """60 users give 5 to seven items of their kind and 1 to three of the other; a kind has its own fields."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(60):
        own, other = 20 * (user % 2), 20 * (1 - user % 2)
        taken = [(own + item, 5) for item in generator.permutation(20)[:7]]
        taken += [(other + item, 1) for item in generator.permutation(20)[:3]]
        for place, number in enumerate(generator.permutation(10)):
            item, rating = taken[number]
            rows.append(f"u{user},i{item},{1000 + 10 * place},{rating}")
    (folder / "ratings.csv").write_text("user_id,item_id,timestamp,rating\n" + "\n".join(rows) + "\n")
    items = [
        f'i{n},{title},{title.split()[0]},"{title.split()[0]}, all",{n // 20 * 10 + n % 20 / 10}'
        for n, title in enumerate(TITLES)
    ]
    (folder / "items.csv").write_text("item_id,title,kind,tags,price\n" + "\n".join(items) + "\n")
    return {
        "interactions": str(folder / "ratings.csv"),
        "items": str(folder / "items.csv"),
        "rating_column": "rating",
        "min_interactions": 1,
    }


def write_mind(folder):
    """Items 0..19 are of war, the others of love; everybody reads one kind and clicks what is of it."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(120):
        kind = number % 2
        history = 20 * kind + rng.permutation(16)[:6]
        shown = [20 * kind + rng.integers(20), 20 * (1 - kind) + rng.integers(20)]
        marks = [f"N{shown[0]}-1", f"N{shown[1]}-0"]
        day = 9 + number // 30
        time = f"11/{day}/2019 2:14:{number % 60:02d} PM"
        rows.append(f"{number}\tU{number}\t{time}\t{' '.join(f'N{i}' for i in history)}\t{' '.join(marks)}")
    (folder / "behaviors.tsv").write_text("\n".join(rows) + "\n")
    (folder / "news.tsv").write_text("".join(f"N{n}\tnews\t{title}\n" for n, title in enumerate(TITLES)))
    return {"source": "mind", "root": str(folder), "split": "last_day"}


def tree_of(name, recipe_tree, folder, **train):
    """Gives the recipe of one of `SECTIONS`, over data that it writes."""
    folder.mkdir(parents=True, exist_ok=True)
    data = write_mind(folder) if name == "listwise" else write_rated(folder)
    kept = {part: recipe_tree[part] for part in ("user_tower", "item_tower")}
    if name == "item_features":  # which teaches the user tower nothing
        kept["user_tower"] = kept["user_tower"] | {"adapter": "none"}
    off = {"softmax": 0, "alignment": 0}
    return kept | {
        "output": str(folder / "out"),
        "data": data,
        "train": recipe_tree["train"] | {"batch_size": 60, "patience": 9} | train,
        "objectives": off | SECTIONS[name],
        "checkpoint": {"every_seconds": 0},
    }


def run(tree, *, keep=False):
    """Trains towers on a tree of `tree_of`; gives them, what training did, and the material."""
    recipe = build_config(Recipe, tree)
    accelerator = Accelerator(cpu=True)
    set_seed(0)
    if recipe.data.source == "mind":
        return _run_shown(recipe, accelerator, keep=keep)
    dataset, split = prepare_data(recipe.data)
    examples, texts = prepare_texts(recipe, dataset, split)
    known = split.train_histories()
    linear = fit_linear(known, LinearChoice(10.0, 1.0, validation=0.0), n_items=split.n_items)
    teacher = teach(recipe, linear, examples)
    material = prepare_material(recipe, dataset, examples, texts, teacher, known=known, log=split.train_log)
    model = build_towers(recipe, device=accelerator.device)
    sources = open_sources(recipe, model, texts, accelerator)
    start = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)
    kept = open_checkpoints(recipe, model, texts, material, accelerator, judged=[]) if keep else None
    result = train_towers(recipe, model, sources, texts, material, dataset, split, start, accelerator, kept)
    return model, result, material


def _run_shown(recipe, accelerator, *, keep):
    data = prepare_shown(recipe)
    teacher = teach_shown(recipe, data)
    material = prepare_shown_material(recipe, data, teacher)
    model = build_towers(recipe, device=accelerator.device)
    sources = open_sources(recipe, model, data.texts, accelerator)
    vectors = solve_and_encode(recipe, model, sources, data.texts, teacher, accelerator)
    frozen = read_item_texts(recipe, model, sources, accelerator)
    kept = open_checkpoints(recipe, model, data.texts, material, accelerator, judged=[]) if keep else None
    result = train_on_histories(recipe, model, sources, data, material, vectors, frozen, accelerator, kept)
    return model, result, material
