"""Puts everything that a run learned into one bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors.numpy import save_file

from lora_rec.bundle import write_bundle
from lora_rec.data.dataset import Dataset
from lora_rec.export.towers import describe_tower, save_towers
from lora_rec.recipe import Recipe
from lora_rec.schema import FORMAT_VERSION, Manifest, RankingManifest, TextManifest
from lora_rec.towers.two_tower import TwoTower

PACKAGES = ("lora-rec", "torch", "transformers", "peft", "accelerate", "numpy")


def export_bundle(
    recipe: Recipe,
    model: TwoTower,
    dataset: Dataset,
    *,
    item_vectors: NDArray[np.float32],
    similarity_vectors: NDArray[np.float32],
    head: dict[str, NDArray[np.generic]],
    metrics: dict[str, Any],
    learned: bool,
    pictures: Mapping[str, bytes],
) -> Path:
    """Writes the bundle of a run to `recipe.output`, whole or not at all.

    Args:
        recipe: written beside the rest, without paths of this machine.
        model: trained towers.
        dataset: its item ids and fields go in; no user does.
        item_vectors: (N, D), of the item tower; kept in half precision.
        similarity_vectors: (N, H), whose cosine says how alike two items are; in half precision too.
        head: arrays of the ranking head.
        metrics: becomes metrics.json.
        learned: false where no epoch beat the frozen towers, so the adapters are as they were attached.
        pictures: PNG files by name; they go into `pictures/`.
    """

    def describe(name: str) -> Any:
        section = getattr(recipe, name)
        return describe_tower(
            getattr(model, name),
            backbone=section.backbone,
            trained_layers=section.trained_layers,
            max_tokens=section.max_tokens,
            learned=learned,
        )

    def fill(folder: Path) -> None:
        save_towers(model, folder, manifest=manifest)
        np.save(folder / "item_vectors.npy", item_vectors.astype(np.float16), allow_pickle=False)
        np.save(folder / "similarity_vectors.npy", similarity_vectors.astype(np.float16), allow_pickle=False)
        items = {
            "ids": dataset.item_ids.tolist(),
            "fields": {k: list(v) for k, v in dataset.item_fields.items()},
        }
        (folder / "items.json").write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
        save_file(
            {name: np.ascontiguousarray(array) for name, array in head.items()},
            str(folder / "head.safetensors"),
        )
        (folder / "recipe.yaml").write_text(portable_recipe(recipe), encoding="utf-8")
        for name, content in pictures.items():
            (folder / "pictures").mkdir(exist_ok=True)
            (folder / "pictures" / name).write_bytes(content)
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")

    manifest = Manifest(
        format_version=FORMAT_VERSION,
        width=recipe.train.width,
        n_items=dataset.n_items,
        user_tower=describe("user_tower"),
        item_tower=describe("item_tower"),
        text=TextManifest(
            item_template=recipe.text.item_template,
            history_item_template=recipe.text.history_item_template,
            history_length=recipe.text.history_length,
            newest_first=recipe.text.newest_first,
        ),
        ranking=RankingManifest(
            strategy=recipe.ranking.strategy,
            n_candidates=recipe.ranking.n_candidates,
            category_field=recipe.ranking.category_field,
            category_separator=recipe.ranking.category_separator,
        ),
        versions={name: _version(name) for name in PACKAGES},
        files={},
    )
    return write_bundle(recipe.output, manifest, fill)


def portable_recipe(recipe: Recipe) -> str:
    """Gives the resolved recipe; an absolute path is cut to its last part, since bundles travel."""
    tree = yaml.safe_load(recipe.to_yaml())
    cut = []
    for section, name in (
        ("data", "interactions"),
        ("data", "items"),
        ("user_tower", "backbone"),
        ("item_tower", "backbone"),
    ):
        value = tree[section][name]
        if value and (PurePath(value).is_absolute() or value.startswith("~")):
            tree[section][name] = PurePath(value).name
            cut.append(f"{section}.{name}")
    if PurePath(tree["output"]).is_absolute():
        tree["output"] = f"runs/{PurePath(tree['output']).name}"
    note = f"# Paths of the machine that ran this were cut; set again: {', '.join(cut)}\n" if cut else ""
    return note + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        from lora_rec import __version__

        return __version__
