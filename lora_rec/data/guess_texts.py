"""Which columns of an item table have words, and which kind: a title, a maker, a category, a long text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lora_rec.data.column_names import names, split_name
from lora_rec.data.columns import read_texts

if TYPE_CHECKING:
    import pandas as pd

SAMPLE = 2_000  # items whose cells are looked at
UNSHARED = 0.9  # of the names of artists that differ, where items are artists
LONG = 120  # letters; a text longer than this on average is a description

_BOOKKEEPING = frozenset(
    "status createdby updatedby modifiedby deletedby editedby uploadedby isactive isdeleted enabled"
    " archived".split()
)

TextKind = Literal["title", "year", "maker", "category", "long"]


@dataclass(frozen=True)
class TextColumns:
    """The columns to write items with, and why the others are left out."""

    kinds: dict[str, TextKind]
    """Column to kind; the title first, then as in the table."""
    left_out: dict[str, str]
    """Column to the reason."""
    lists: frozenset[str] = frozenset()
    """Columns whose cells are lists, which are read joined by commas."""

    @property
    def title(self) -> str | None:
        """The column that names an item; None where no column has words."""
        return next((column for column, kind in self.kinds.items() if kind == "title"), None)

    def of_kind(self, kind: TextKind) -> list[str]:
        """Gives the columns of one kind."""
        return [column for column, own in self.kinds.items() if own == kind]


def guess_texts(
    items: pd.DataFrame, *, id_column: str | None, chosen: Sequence[str] | None = None
) -> TextColumns:
    """Sorts the columns of an item table into kinds of text.

    Args:
        items: one row per item; a sample is read.
        id_column: left out.
        chosen: the columns to take, whatever they hold; the first is the title.
    """
    rows = items
    if len(items) > SAMPLE:
        rows = items.iloc[np.linspace(0, len(items) - 1, SAMPLE).astype(int)]
    kinds: dict[str, TextKind] = {}
    left_out: dict[str, str] = {}
    distinct: dict[str, float] = {}
    for column in [str(c) for c in items.columns if str(c) != id_column] if chosen is None else chosen:
        texts = [text for text in read_texts(rows[column]) if text]
        reason = "a name that no template can hold" if set(column) & set("{}[]") else _why_no_text(texts)
        if chosen is None and any(map(_is_no_text, rows[column].tolist())):
            reason = "mappings or bytes, not text"
        if chosen is None and not reason and not _BOOKKEEPING.isdisjoint(split_name(column)):
            reason = "bookkeeping, by its name"
        if reason == "numbers" and names(column, "year") and _are_years(texts):
            kinds[column] = "year"
        elif reason and (chosen is None or not texts):
            left_out[column] = reason
        else:
            distinct[column] = len(set(texts)) / len(texts)
            kinds[column] = _kind(column, texts, distinct=distinct[column])
    title = _title(kinds, distinct) if not chosen else next(iter(kinds), None)
    if title is None:
        return TextColumns({}, {**dict.fromkeys(kinds, "a year alone says nothing"), **left_out})
    ordered: dict[str, TextKind] = {title: "title"}
    lists = {
        c for c in kinds if any(isinstance(cell, (list, tuple, np.ndarray)) for cell in rows[c].tolist())
    }
    kinds_of_all = ordered | {c: k for c, k in kinds.items() if c != title}
    return TextColumns(kinds_of_all, left_out, frozenset(lists))


def _is_no_text(cell: Any) -> bool:
    """Says whether a cell, or what a list holds, would be written as Python writes it."""
    if isinstance(cell, (list, tuple, np.ndarray)):
        return any(map(_is_no_text, cell))
    return isinstance(cell, (dict, bytes))


def _why_no_text(texts: list[str]) -> str:
    """Says why cells are no text for a language model; an empty string where they are."""
    if not texts:
        return "empty"
    n = len(texts)
    letters = np.array([sum(map(str.isalpha, text)) for text in texts])
    lengths = np.array([len(text) for text in texts])
    digits = np.array([any(map(str.isdigit, text)) for text in texts])
    # Chinese and Japanese are written without spaces.
    single = np.array([" " not in text and text.isascii() for text in texts])
    if sum(text.startswith(("http://", "https://", "www.", "//")) for text in texts) > n / 2:
        return "web addresses"
    if len({text.lower() for text in texts} - {"true", "false", "t", "f", "yes", "no"}) == 0:
        return "yes or no"
    if letters.sum() < 0.3 * lengths.sum():
        return "numbers"
    if (single & digits).mean() > 0.8:
        return "codes"
    if len(set(texts)) == 1 and n > 1:
        return "the same for every item"
    return ""


def _are_years(texts: list[str]) -> bool:
    years = [text for text in texts if len(text) == 4 and text.isdecimal() and 1000 <= int(text) < 2100]
    return len(years) > 0.9 * len(texts)


def _kind(column: str, texts: list[str], *, distinct: float) -> TextKind:
    if np.mean([len(text) for text in texts]) > LONG:
        return "long"
    if names(column, "maker"):
        return "maker"
    return "title" if names(column, "title") or distinct > 0.5 else "category"


def _title(kinds: dict[str, TextKind], distinct: dict[str, float]) -> str | None:
    """Chooses the title: by name, then the short text that differs most between items; others are details."""
    short = [column for column in distinct if kinds[column] != "long"] or list(distinct)
    if not short:
        return None
    titles = [column for column in short if kinds[column] == "title"]
    for column in titles:
        kinds[column] = "category"
    named = [column for column in short if names(column, "title")]
    # The name of an artist or a category is a title only where no two items share it.
    shared = [c for c in named if (names(c, "maker") or names(c, "category")) and distinct[c] < UNSHARED]
    if len(short) > len(shared):
        named = [column for column in named if column not in shared]
    makers = [column for column in short if column not in named and kinds[column] == "maker"]
    ordered = named or titles or [column for column in short if column not in makers] or short
    return max(ordered, key=lambda column: distinct[column])
