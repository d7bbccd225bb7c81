"""Puts everything that a run learned into one bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors.numpy import save_file

from lora_rec.bundle import write_bundle
from lora_rec.data.dataset import Dataset
from lora_rec.data.publishers import PUBLISHERS
from lora_rec.data_section import DataSection
from lora_rec.export.towers import describe_tower, save_towers
from lora_rec.hub_section import is_hub_name
from lora_rec.rank.spaces import ItemSpaces
from lora_rec.rank.tradeoff import MEASUREMENTS, Front, Point, store_setting
from lora_rec.recipe import Recipe
from lora_rec.schema import FORMAT_VERSION, TOWERS, DataManifest, Manifest, RankingManifest, TextManifest
from lora_rec.towers.two_tower import TwoTower

Arrays = Mapping[str, NDArray[np.generic]]
PACKAGES = ("lora-rec", "torch", "transformers", "peft", "accelerate", "numpy")


def export_bundle(
    recipe: Recipe,
    model: TwoTower,
    dataset: Dataset,
    *,
    item_vectors: NDArray[np.float32],
    spaces: ItemSpaces,
    metrics: dict[str, Any],
    learned: bool,
    pictures: Mapping[str, bytes],
    head: Arrays | None = None,
    shown: Arrays | None = None,
    front: Front | None = None,
    setting: Point | None = None,
) -> Path:
    """Writes the bundle of a run to `recipe.output`, whole or not at all.

    Args:
        recipe: written beside the rest, without paths of this machine.
        model: trained towers.
        dataset: its item ids and fields go in; no user does.
        item_vectors: (N, D), of the item tower; kept in half precision.
        spaces: what re-ranking looks at; in half precision too.
        metrics: becomes metrics.json.
        learned: false where no epoch beat the frozen towers, so the adapters are as they were attached.
        pictures: PNG files by name; they go into `pictures/`.
        head: arrays of the ranking head, where a catalogue is ranked.
        shown: arrays of the scorer of shown lists, where those are ordered.
        front: what re-ranking gave on validation users, where a catalogue is ranked; means alone, no user.
        setting: of re-ranking, the bundle's own; the relevance order when left out.
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
        spaces.save(folder)
        if front is not None:
            measured = json.dumps(front.to_json(), indent=1)
            (folder / MEASUREMENTS).write_text(measured + "\n", encoding="utf-8")
        items = {
            "ids": dataset.item_ids.tolist(),
            "fields": {k: list(v) for k, v in dataset.item_fields.items()},
        }
        (folder / "items.json").write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
        for name, arrays in (("head", head), ("shown", shown)):
            if arrays is not None:
                plain = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
                save_file(plain, str(folder / f"{name}.safetensors"))
        (folder / "recipe.yaml").write_text(portable_recipe(recipe), encoding="utf-8")
        for name, content in pictures.items():
            (folder / "pictures").mkdir(exist_ok=True)
            (folder / "pictures" / name).write_bytes(content)
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")

    ranking = RankingManifest(
        strategy=recipe.ranking.strategy,
        n_candidates=recipe.ranking.n_candidates,
        space=recipe.ranking.space,
        category_field=recipe.ranking.category_field,
        category_separator=recipe.ranking.category_separator,
    )
    if front is not None and front.chances is not None:
        steepness, typical = front.chances.steepness, front.chances.typical
        ranking = replace(ranking, steepness=steepness, typical_chance=typical)
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
        ranking=ranking if setting is None else store_setting(ranking, setting),
        versions={name: version_of(name) for name in PACKAGES},
        files={},
        data=describe_source(recipe.data),
    )
    return write_bundle(recipe.output, manifest, fill)


def describe_source(section: DataSection) -> DataManifest:
    """Gives what the data is called, its terms and its publisher's page."""
    if section.source == "files":
        named = section.name or "own tables"
        return DataManifest(named, section.licence, dataset_id=named if is_hub_name(named) else None)
    publisher = PUBLISHERS[section.source.removesuffix("-small")]
    title = section.source + (f" ({section.variant})" if section.variant else "")
    return DataManifest(title, publisher.licence, publisher.home, section.source)


def portable_recipe(recipe: Recipe) -> str:
    """Gives the resolved recipe; paths that lead elsewhere are cut, since bundles travel."""
    return cut_paths(
        recipe.to_yaml(),
        ("data.root", "data.interactions", "data.items", "data.friends"),
        (f"{tower}.{name}" for name in ("backbone", "start_from") for tower in TOWERS),
        ("regularisation.translate_there", "regularisation.translate_back"),
    )


def cut_paths(text: str, *names: Iterable[str]) -> str:
    """Gives a recipe with paths that lead elsewhere, its output's too, cut to their last parts.

    Args:
        text: the recipe as YAML.
        names: settings that may hold paths, e.g. `data.root`.
    """
    tree = yaml.safe_load(text)
    cut = []
    for path in chain(*names):
        *sections, name = path.split(".")
        holder = tree
        for section in sections:
            holder = holder.get(section) or {}
        value = holder.get(name)
        if value and leads_elsewhere(value):
            holder[name] = PurePath(value).name
            cut.append(path)
    if leads_elsewhere(tree["output"]):
        tree["output"] = f"runs/{PurePath(tree['output']).name}"
    note = f"# Paths of the machine that ran this were cut; set again: {', '.join(cut)}\n" if cut else ""
    return note + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def leads_elsewhere(path: str) -> bool:
    """Says whether a path leads out of the folder that it starts from.

    >>> leads_elsewhere("/srv/clicks.csv"), leads_elsewhere("~/a"), leads_elsewhere("a/../../b.csv")
    (True, True, True)
    >>> leads_elsewhere("data/clicks.csv"), leads_elsewhere("owner/name")
    (False, False)
    """
    parts = PurePath(path.replace("\\", "/")).parts
    with_drive = re.match(r"[A-Za-z]:[\\/]|[\\/]{2}|file:", path) is not None
    return with_drive or path.startswith(("/", "~")) or ".." in parts


def version_of(package: str) -> str:
    """Gives the version of a package, of our own too where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        from lora_rec import __version__

        return __version__
