"""Which columns of two tables hold the same ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.column_names import Role, names
from lora_rec.data.columns import read_ids

if TYPE_CHECKING:
    import pandas as pd

LONGEST_ID = 64  # letters; longer cells are texts


@dataclass(frozen=True)
class IdPair:
    """An interaction column whose cells may be the ids in a column of the item table."""

    item: str
    item_id: str
    contained: float
    """Share of the distinct ids in `item` that `item_id` has."""
    covered: float
    """Share of the ids in `item_id` that `item` has."""
    score: float

    @property
    def why(self) -> str:
        """What speaks for the pair."""
        return f"{self.contained:.0%} of its ids are in {self.item_id}, {self.covered:.0%} of those are used"


def find_id_pairs(
    interactions: pd.DataFrame, items: pd.DataFrame, *, given: Mapping[Role, str | None] | None = None
) -> list[IdPair]:
    """Finds the columns of two tables that hold the same ids, best first.

    Raises:
        DataError: never for what the cells hold; a column that holds no ids is no candidate.
    """
    given = given or {}
    taken = [c for role, c in given.items() if role in ("user", "time", "rating") and c]
    catalog = {}
    for column in [str(c) for c in items.columns if given.get("item_id") in (None, str(c))]:
        if names(column, "time"):  # two tables may hold the same moments
            continue
        ids = distinct_ids(items[column])
        if ids is not None and len(ids) >= 0.9 * len(items):
            catalog[column] = ids
    pairs = []
    columns = [str(c) for c in interactions.columns if given.get("item") in (None, str(c))]
    if any(names(c, "item") and not names(c, "user") for c in columns):
        # A user's small whole numbers are contained in any ids; named items are the items, or nothing is.
        columns = [c for c in columns if names(c, "item") or not names(c, "user")]
    for column in columns:
        ids = distinct_ids(interactions[column], most=2 * len(items)) if column not in taken else None
        if ids is None or not len(ids):
            continue
        for item_id, known in catalog.items():
            contained = float(np.isin(ids, known).mean())
            covered = contained * len(ids) / len(known)
            score = contained + covered / 2 + _pair_names(column, item_id)
            pairs.append(IdPair(column, item_id, contained, covered, score))
    return sorted((p for p in pairs if p.contained >= 0.5), key=lambda p: -p.score)


def distinct_ids(column: pd.Series, *, most: int | None = None) -> NDArray[np.str_] | None:
    """Gives the distinct ids as the loader reads them, or None: texts, fractions, or more than `most`."""
    head = column.dropna().head(1000)
    try:
        if head.empty or head.astype(str).str.len().mean() > LONGEST_ID:
            return None
        distinct = column.dropna().drop_duplicates()
    except TypeError:  # lists and mappings have no hash
        return None
    if most is not None and len(distinct) > most:
        return None
    return read_ids(distinct.reset_index(drop=True)).names


def _pair_names(item: str, item_id: str) -> float:
    """Says how far two names speak for a pair; small whole numbers are contained in any ids."""
    other = names(item, "user") or names(item, "time") or names(item, "rating")
    score = 0.5 * names(item, "item") - 0.5 * (other and not names(item, "item"))
    score += 0.25 * names(item_id, "id") + 0.25 * (item.lower() == item_id.lower())
    return score
