"""Which file of a folder holds the interactions, and which the items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

from lora_rec.data.column_names import Role, names
from lora_rec.data.id_pairs import find_id_pairs
from lora_rec.data.sources import SUFFIXES, read_table
from lora_rec.errors import DataError, LoraRecError

if TYPE_CHECKING:
    import pandas as pd

MOST_FILES = 6  # each is read, and compared with each
CLEAR = 0.3

Choose = Callable[[str, Sequence[str]], str]
"""Asks a question with options, the guess first; gives one of them."""


@dataclass(frozen=True, eq=False)
class Tables:
    """The two files of a data set, read."""

    interactions_path: str
    items_path: str
    interactions: pd.DataFrame
    items: pd.DataFrame
    why: str


def find_tables(
    folder: str | Path,
    *,
    interactions: str | None = None,
    items: str | None = None,
    given: Mapping[Role, str | None] | None = None,
    choose: Choose | None = None,
) -> Tables:
    """Finds and reads the two tables of a folder.

    What tells them apart: one has ids of which the other has each once. Names of columns and files help.

    Args:
        folder: where to look, not below it.
        interactions: this file, wherever it lies, if it is known.
        items: the same for the item table.
        given: columns that are known.
        choose: asks where two pairs of files are nearly alike; the better one is taken without it.

    Raises:
        DataError: there is no folder, or too few or too many tables are in it, or two pairs are alike.
    """
    if interactions and items:
        return Tables(
            interactions,
            items,
            read_table(interactions, name="interactions"),
            read_table(items, name="items"),
            "as given",
        )
    paths = _list_tables(Path(folder))
    paths += [path for path in (interactions, items) if path and path not in paths]
    if len(paths) < 2 or len(paths) > MOST_FILES:
        found = f"{len(paths)} tables ({', '.join(paths)})" if paths else "no table"
        raise DataError(
            f"init: {folder} holds {found}; give --interactions FILE and --items FILE ({', '.join(SUFFIXES)})"
        )
    tables = {path: frame for path in paths if (frame := _try_read(path, paths)) is not None}
    scores = {
        (first, second): _score(first, tables[first], second, tables[second], given)
        for first, second in permutations(tables, 2)
        if interactions in (None, first) and items in (None, second)
    }
    (first, second), why = _pick(scores, folder=folder, choose=choose)
    return Tables(first, second, tables[first], tables[second], why)


def _list_tables(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DataError(f"init: there is no folder {folder}; give the folder that holds the two tables")
    files = (path for path in sorted(folder.iterdir()) if path.is_file())
    return [str(path) for path in files if path.name.lower().removesuffix(".gz").endswith(tuple(SUFFIXES))]


def _try_read(path: str, paths: Sequence[str]) -> pd.DataFrame | None:
    """Reads a table; one that cannot be read is no candidate, unless there are just two."""
    try:
        return read_table(path, name=Path(path).name)
    except LoraRecError:
        if len(paths) == 2:
            raise
        return None


def _score(
    first: str,
    interactions: pd.DataFrame,
    second: str,
    items: pd.DataFrame,
    given: Mapping[Role, str | None] | None,
) -> float:
    """Says how well two tables fit as interactions and items; 1.5 and more where they share all ids."""
    missing = [
        c for r, c in (given or {}).items() if c and c not in (items if r == "item_id" else interactions)
    ]
    pairs = [] if missing else find_id_pairs(interactions, items, given=given)
    score = pairs[0].score if pairs else 0.0
    of_users = [any(names(str(c), "user") for c in table.columns) for table in (interactions, items)]
    score += 0.5 * of_users[0] - 0.5 * of_users[1] + 0.25 * (len(interactions) > len(items))
    score += 0.25 * names(Path(first).stem, "interactions_file")  # user_artists.tsv is not one of artists
    items_name = Path(second).stem
    score += 0.25 * names(items_name, "items_file") - 0.25 * names(items_name, "interactions_file")
    return score


def _pick(
    scores: Mapping[tuple[str, str], float], *, folder: str | Path, choose: Choose | None
) -> tuple[tuple[str, str], str]:
    """Gives the best pair, and why."""
    order = sorted(scores, key=lambda pair: -scores[pair])
    if not order:
        raise DataError(
            f"init: {folder} holds no two tables that can be read; give --interactions and --items"
        )
    lead = scores[order[0]] - scores[order[1]] if len(order) > 1 else CLEAR
    if lead >= CLEAR:
        return order[0], "shared ids, names and sizes"
    if choose is not None:
        labels = {
            f"{Path(first).name} with the items in {Path(second).name}": (first, second)
            for first, second in order
        }
        return labels[choose("Which file holds the interactions?", list(labels))], "as answered"
    if lead < 0.05:
        raise DataError(
            f"init: cannot tell which file of {folder} holds the interactions"
            f" ({order[0][0]} or {order[1][0]}); give --interactions FILE and --items FILE"
        )
    return order[0], f"shared ids, names and sizes (not sure: {order[1][0]} is nearly as near)"
