"""The data of a bundle's run, read again and split as its recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from lora_rec.data.dataset import Dataset, Split
from lora_rec.data_section import DataSection
from lora_rec.errors import BundleError, DataError, RecipeError
from lora_rec.page.run import Run
from lora_rec.pipeline.data import describe_data, load_data, split_data
from lora_rec.recipe import Recipe

TABLES = ("interactions", "items", "friends")


def find_data(bundle: str | Path, given: Sequence[str]) -> DataSection:
    """Gives a bundle's data section with what was given on the command line.

    Args:
        bundle: its recipe says how the data is read and split.
        given: nothing, where the recipe's own paths are still right; a folder with the publisher's files or
            with the tables that the recipe names; or `data.FIELD=value`.

    Raises:
        DataError: two folders, or a setting of another section.
        RecipeError: settings that do not fit together.
    """
    folders = [text for text in given if "=" not in text]
    overrides = [text for text in given if "=" in text]
    if len(folders) > 1:
        raise DataError(f"--data: {', '.join(folders)} are {len(folders)} folders; give one")
    wrong = [text for text in overrides if not text.startswith("data.")]
    if wrong:
        raise DataError(f"--data: {wrong[0]!r} is no setting of the data; give a folder or data.FIELD=value")
    section = Recipe.load(Path(bundle) / "recipe.yaml", overrides=overrides).data
    if not folders:
        return section
    if not Path(folders[0]).expanduser().is_dir():
        raise DataError(f"--data: there is no folder {folders[0]!r}; give the one that holds the run's data")
    try:
        return replace(section, **_in_folder(section, folders[0]))
    except RecipeError as error:
        raise RecipeError(f"--data: {folders[0]!r} does not fit the recipe; data.{error}") from error


def _in_folder(section: DataSection, folder: str) -> dict[str, Any]:
    """Gives the settings with which a section reads from a folder."""
    if section.source != "files":
        return {"root": folder, "variant": None}
    named = {name: getattr(section, name) for name in TABLES}
    return {name: str(Path(folder) / PurePath(path).name) for name, path in named.items() if path}


def read_data(run: Run, section: DataSection) -> tuple[Dataset, Split]:
    """Reads the data and splits it, and checks that it is what the bundle's run had.

    Raises:
        DataError: the data cannot be read.
        BundleError: it is another data set or split, or the bundle does not say which it had.
    """
    if "fingerprint" not in run.data:
        raise BundleError(
            f"{run.name}: written by an older version, so nothing tells whether this is the data of its run;"
            " run its recipe again, or leave --data out"
        )
    dataset = load_data(section)
    known = list(run.recommender.item_ids)
    if dataset.item_ids.tolist() != known:
        raise BundleError(
            f"{run.name}: written from other data: it has {len(known):,} items, this data"
            f" {dataset.n_items:,}{_first_difference(known, dataset.item_ids.tolist())};"
            " give --data the data of its run"
        )
    split = split_data(section, dataset)
    described = describe_data(dataset, split)
    if described["fingerprint"] != run.data["fingerprint"]:
        raise BundleError(
            f"{run.name}: written from other data or another split: {_what_differs(run.data, described)};"
            " give --data the data of its run"
        )
    return dataset, split


def _first_difference(known: list[str], given: list[str]) -> str:
    for own, other in zip(known, given, strict=False):
        if own != other:
            return f", and {other!r} where it has {own!r}"
    return ""


def _what_differs(known: dict[str, Any], given: dict[str, Any]) -> str:
    """Names the first number that differs, from the most general to the parts of the split."""
    for name in ("split", "n_users", "n_interactions"):
        if known[name] != given[name]:
            return f"{name} is {given[name]}, was {known[name]}"
    for part, counts in known["kept"].items():
        for what, count in counts.items():
            if given["kept"][part][what] != count:
                return f"{part} has {given['kept'][part][what]:,} {what}, had {count:,}"
    return "as many users and interactions, but others"
