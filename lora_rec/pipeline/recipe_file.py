"""A recipe as a file: texts quoted, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from lora_rec.errors import RecipeError


def quote_text(value: str | None) -> str:
    """Writes a text as JSON does it."""
    return "null" if value is None else json.dumps(value, ensure_ascii=False)


def check_free(path: str | Path, *, force: bool) -> None:
    """Refuses a recipe that is there, before any work.

    Raises:
        RecipeError: there is a file and `force` is not set, or no folder to write it to.
    """
    if Path(path).is_dir():
        raise RecipeError(f"{path}: is a folder; name a file, e.g. --output {Path(path) / 'recipe.yaml'}")
    if Path(path).exists() and not force:
        raise RecipeError(f"{path}: is there already; pass --force to replace it, or --output ANOTHER.yaml")
    if not Path(path).parent.is_dir():
        raise RecipeError(f"{path}: there is no folder {Path(path).parent}; make it first")


def write_recipe(path: str | Path, text: str, *, force: bool = False) -> None:
    """Writes a recipe whole or not at all.

    Raises:
        RecipeError: see `check_free`.
    """
    check_free(path, force=force)
    with tempfile.TemporaryDirectory(dir=Path(path).parent, prefix=".recipe") as scratch:
        file = Path(scratch) / "recipe.yaml"
        file.write_text(text, encoding="utf-8")
        os.replace(file, path)
