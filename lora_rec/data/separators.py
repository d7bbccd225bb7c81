"""What parts the names in one cell of a table: genres of a film, tags of an artist."""

from __future__ import annotations

from collections.abc import Sequence

SEPARATORS = ("|", ";", ",", "/", ">")


def guess_separator(values: Sequence[str]) -> str | None:
    """Gives what seems to part the categories of an item; None where each seems to have one.

    That is what stands in a tenth of the cells at least and leaves the fewest different names.

    >>> guess_separator(["Drama|War", "War", "Drama, sad|War"]), guess_separator(["Drama", "War"])
    ('|', None)
    """
    cells = [value for value in values if value.strip()]
    names = {}
    for separator in SEPARATORS:
        if sum(separator in cell for cell in cells) >= max(1, len(cells) / 10):
            names[separator] = len({part.strip() for cell in cells for part in cell.split(separator)})
    best = min(names, key=lambda separator: names[separator], default=None)
    return best if best is not None and names[best] <= len(set(cells)) else None


def find_other_separator(values: Sequence[str], separator: str) -> str | None:
    """Gives what parts the categories of more cells than the separator that was named; usually None.

    >>> find_other_separator(["Drama|War", "War"], ","), find_other_separator(["Drama|War", "War"], "|")
    ('|', None)
    """
    other = guess_separator(values)
    if other is None:
        return None
    with_other, with_own = (sum(mark in value for value in values) for mark in (other, separator))
    return other if with_other > with_own else None
