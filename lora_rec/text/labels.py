"""Says of every character of a rendered text which field and item it comes from, and cuts it into words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.text.templates import SEPARATOR, UNTITLED, fill_template, find_fields, in_text_order

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W{_IDEOGRAPHS}]+(?:['\u2019][^\W{_IDEOGRAPHS}]+)*")


@dataclass(frozen=True)
class LabelledText:
    """A text as the templates write it, with the origin of its characters."""

    text: str
    fields: tuple[str, ...]
    """The field of each character; empty for what the template adds, and for spaces."""
    places: tuple[int, ...]
    """The place of its item in the history, from 0 for the oldest; -1 between items."""

    def words(self) -> list[tuple[int, int]]:
        """Gives where words start and end: marks and spaces go with the word before; an ideograph is a word.

        >>> text = label_item("{title} ({year})", {"title": "Pan's Labyrinth: 霸王", "year": "2006"})
        >>> [text.text[start:stop] for start, stop in text.words()]
        ["Pan's ", 'Labyrinth: ', '霸', '王 (', '2006)']
        """
        starts = [match.start() for match in _WORD.finditer(self.text)] or [0]
        return list(zip([0, *starts[1:]], [*starts[1:], len(self.text)], strict=True))

    def origin(self, start: int, stop: int) -> tuple[str, int]:
        """Gives the field and the place of a word: those of its first letter or digit."""
        letters = (n for n in range(start, stop) if self.text[n].isalnum())
        first = next(letters, start)
        return self.fields[first], self.places[first]


def label_item(template: str, values: Mapping[str, str], *, place: int = 0) -> LabelledText:
    """Labels the text that `render_items` writes for one item.

    Args:
        template: see `render_items`.
        values: field to string.
        place: of the item.

    >>> label_item("{title}, {year}", {"title": "Heat", "year": " 1995"}).fields[3:]
    ('title', '', '', 'year', 'year', 'year', 'year')
    """
    pieces = fill_template(template, values)
    text = " ".join("".join(piece for piece, _ in pieces).split())
    # Only spaces were changed, so the n-th other character is still the n-th.
    origins = iter([field for piece, field in pieces for letter in piece if not letter.isspace()])
    fields = tuple("" if letter.isspace() else next(origins) for letter in text)
    if not text:
        text, fields = UNTITLED, ("",) * len(UNTITLED)
    return LabelledText(text, fields, (place,) * len(text))


def label_history(
    history: NDArray[np.int64],
    template: str,
    fields: Mapping[str, Sequence[str]],
    *,
    length: int,
    newest_first: bool = True,
) -> LabelledText:
    """Labels the text that `render_histories` writes for one history.

    Args:
        history: rows of `fields`, oldest first.
        template: how one item of it is written.
        fields: field name to one string per item.
        length: see `render_histories`.
        newest_first: see `render_histories`.
    """
    names = find_fields(template)
    parts: list[LabelledText] = []
    for place in in_text_order(np.arange(len(history)), length=length, newest_first=newest_first):
        values = {name: fields[name][history[place]] for name in names}
        between = len(SEPARATOR) if parts else 0
        parts.append(LabelledText(SEPARATOR[:between], ("",) * between, (-1,) * between))
        parts.append(label_item(template, values, place=int(place)))
    if not parts:
        parts.append(LabelledText(UNTITLED, ("",) * len(UNTITLED), (-1,) * len(UNTITLED)))
    return LabelledText(
        "".join(part.text for part in parts),
        tuple(field for part in parts for field in part.fields),
        tuple(place for part in parts for place in part.places),
    )
