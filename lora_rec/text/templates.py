"""Turns item fields and histories into the text that the language models read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lora_rec.errors import DataError, did_you_mean

UNTITLED = "untitled"
SEPARATOR = "; "
"""Between the items of a history."""
_FIELD = re.compile(r"\{([^{}\[\]]+)\}")
_SEGMENT = re.compile(r"\[([^\[\]]*)\]")


def render_items(template: str, fields: Mapping[str, Sequence[str]], *, where: str = "template") -> list[str]:
    """Writes one text per item.

    Args:
        template: names fields in braces. A segment in square brackets is left out, with what stands
            around its fields, when one of its fields is empty for an item.
        fields: field name to one string per item.
        where: named in errors.

    Raises:
        DataError: the template names no field, or one that does not exist.

    >>> render_items("{title}[ ({year})]", {"title": ["Toy Story", "Cosmos"], "year": ["1995", ""]})
    ['Toy Story (1995)', 'Cosmos']
    """
    names = find_fields(template)
    if not names:
        raise DataError(f"{where}: {template!r} names no field; write one in braces, e.g. {{title}}")
    for name in names:
        if name not in fields:
            hint = did_you_mean(name, fields) or f"the item table has: {', '.join(fields)}"
            raise DataError(f"{where}: there is no field {name!r}; {hint}")
        if isinstance(fields[name], str):
            raise DataError(f"{name}: {fields[name]!r} is one string; give a list, one text per item")
    columns = [fields[name] for name in names]
    return [_render(template, dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def find_fields(template: str) -> list[str]:
    """Gives the fields that a template names, each once.

    >>> find_fields("{title}[ ({release year})][, {title}]")
    ['title', 'release year']
    """
    return list(dict.fromkeys(_FIELD.findall(template)))


def fill_template(template: str, values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Gives the pieces of one item's text, each with the field that it comes from, before spaces are joined.

    >>> fill_template("{title}[ ({year})][, {tag}]", {"title": "Heat", "year": "1995", "tag": ""})
    [('Heat', 'title'), (' (', ''), ('1995', 'year'), (')', '')]
    """

    def segment(match: re.Match[str]) -> str:
        inner = match.group(1)
        return inner if all(values[name].strip() for name in _FIELD.findall(inner)) else ""

    # Splitting by a pattern with one group gives what stands between, then the group, by turns.
    parts = _FIELD.split(_SEGMENT.sub(segment, template))
    pieces = [(values[part], part) if place % 2 else (part, "") for place, part in enumerate(parts)]
    return [piece for piece in pieces if piece[0]]


def _render(template: str, values: Mapping[str, str]) -> str:
    text = "".join(piece for piece, _ in fill_template(template, values))
    return " ".join(text.split()) or UNTITLED


def render_histories(
    histories: Iterable[NDArray[np.int64]],
    item_texts: Sequence[str],
    *,
    length: int,
    newest_first: bool = True,
) -> list[str]:
    """Writes one text per history: its most recent items, joined by `SEPARATOR`.

    Args:
        histories: item indices of each history, oldest first.
        item_texts: how each item is written in a history.
        length: number of most recent items to keep.
        newest_first: order in the text; a text that is too long is cut at its end.

    >>> render_histories([np.array([0, 1, 2])], ["Heat", "Casino", "Alien"], length=2)
    ['Alien; Casino']
    """
    texts = []
    for history in histories:
        ordered = in_text_order(history, length=length, newest_first=newest_first)
        texts.append(SEPARATOR.join(item_texts[item] for item in ordered) or UNTITLED)
    return texts


def check_rows(rows: Iterable[int], *, n_rows: int, where: str) -> NDArray[np.int64]:
    """Gives row numbers as an array.

    Raises:
        DataError: one is no whole number from 0 to below `n_rows`.
    """
    given = np.asarray(list(rows))
    found = given.astype(np.int64)
    if ((found != given) | (found < 0) | (found >= n_rows)).any():
        raise DataError(f"{where}: rows {given.tolist()}; give whole numbers from 0 to {n_rows - 1}")
    return found


def in_text_order(history: NDArray[np.int64], *, length: int, newest_first: bool) -> NDArray[np.int64]:
    """Gives the newest entries of a history as its text names them."""
    recent = history[-length:]
    return recent[::-1] if newest_first else recent
