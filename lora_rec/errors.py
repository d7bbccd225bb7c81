"""Errors that a user can act on: every message reads `<where>: <what is wrong>; <what to do>`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LoraRecError(Exception):
    """Something that the caller can put right; the message says where, what and how."""


class DataError(LoraRecError):
    """A table, an id or a history that cannot be used."""


class ArgumentError(LoraRecError, ValueError):
    """A number or a name that a function does not take, such as a list of no items."""


class RecipeError(LoraRecError):
    """A recipe or an override that is wrong or would have no effect."""


class TowerError(LoraRecError):
    """A backbone, tokenizer or adapter that does not fit its tower."""


class TrainingError(LoraRecError):
    """A run that cannot go on: a loss that is not a number, an adapter that does not move."""


class BundleError(LoraRecError):
    """A bundle that is missing, damaged, or of another version."""


class HubError(LoraRecError):
    """The Hub has not what was asked for, refuses it, or cannot be reached."""


def missing_extra(module: str, *, extra: str) -> LoraRecError:
    """Gives the error for an optional package that is not installed."""
    return LoraRecError(f"{module}: not installed; run: pip install 'lora-rec[{extra}]'")


def missing_package(error: ModuleNotFoundError) -> LoraRecError:
    """Gives the error for a package that whole modules are made of; what is ours is a defect and raised.

    What other extras than `train` bring is asked for where it is used.
    """
    package = (error.name or "lora_rec").partition(".")[0]
    if package == "lora_rec":
        raise error
    return missing_extra(package, extra="train")


def nearest_names(name: str, known: Iterable[str], *, n: int = 3) -> list[str]:
    """Gives the known names nearest to a wrong one, best first.

    >>> nearest_names("querry", ["key", "query", "value"])
    ['query']
    """
    return difflib.get_close_matches(name, list(known), n=n, cutoff=0.6)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Gives `did you mean 'x' or 'y'?`, or an empty string when nothing is near.

    >>> did_you_mean("item_towr", ["item_tower", "train"])
    "did you mean 'item_tower'?"
    """
    near = nearest_names(name, known)
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
