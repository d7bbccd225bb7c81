"""Names in texts: found by a list of them, tagged token by token, and read back from tags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

LETTERS_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Chinese and Japanese letters, for a class of a pattern: their words are not parted by spaces."""
_WORD = re.compile(rf"[{LETTERS_ALONE}]|[^\W{LETTERS_ALONE}]+")
OUTSIDE = 0
"""Tag of a token that belongs to no name."""


@dataclass(frozen=True)
class Entity:
    """A name in a text."""

    start: int
    """First character."""
    end: int
    """One after the last."""
    kind: str


class Gazetteer:
    """Names with their kinds, e.g. brands and places; neither case nor what parts the words counts.

    >>> Gazetteer({"New York": "place", "York": "place", "Nike": "brand"}).find("NIKE shoes, new-york")
    [Entity(start=0, end=4, kind='brand'), Entity(start=12, end=20, kind='place')]
    """

    def __init__(self, names: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        """Takes names and kinds; the first kind of a name counts."""
        pairs = names.items() if isinstance(names, Mapping) else names
        self._kinds: dict[tuple[str, ...], str] = {}
        for name, kind in pairs:
            if words := tuple(word.lower() for word in _WORD.findall(name)):
                self._kinds.setdefault(words, kind)
        self._longest = max(map(len, self._kinds), default=0)

    def find(self, text: str) -> list[Entity]:
        """Gives the names in a text, from its start, the longest first where several begin alike."""
        words = list(_WORD.finditer(text))
        lower = [word.group().lower() for word in words]
        found: list[Entity] = []
        place = 0
        while place < len(words):
            for stop in range(min(place + self._longest, len(words)), place, -1):
                kind = self._kinds.get(tuple(lower[place:stop]))
                if kind is not None:
                    found.append(Entity(words[place].start(), words[stop - 1].end(), kind))
                    place = stop
                    break
            else:
                place += 1
        return found


def tag_tokens(
    entities: Sequence[Entity], offsets: Sequence[tuple[int, int]], kinds: Sequence[str], *, ignored: int
) -> list[int]:
    """Gives each token's tag: 0 outside, 2 k + 1 where a name of kind k begins, 2 k + 2 inside of it.

    Args:
        entities: of the text, from its start.
        offsets: first character of each token, and one after its last; both alike for a special token.
        kinds: names of the kinds.
        ignored: tag of a special token.

    >>> tag_tokens([Entity(0, 8, "place")], [(0, 0), (0, 3), (4, 8), (9, 12)], ["place"], ignored=-100)
    [-100, 1, 2, 0]
    """
    tags, seen = [], set()
    for start, end in offsets:
        number = next((n for n, e in enumerate(entities) if e.start < end and start < e.end), None)
        if start == end:
            tags.append(ignored)
        elif number is None:
            tags.append(OUTSIDE)
        else:
            inside = number in seen
            seen.add(number)
            tags.append(2 * kinds.index(entities[number].kind) + 1 + inside)
    return tags


def read_tags(tags: Iterable[int]) -> set[tuple[int, int, int]]:
    """Gives the names in a row of tags: first token, one after the last, kind.

    An inside tag that follows no name of its kind begins one.

    >>> sorted(read_tags([0, 1, 2, 1, 0, 4, 4]))
    [(1, 3, 0), (3, 4, 0), (5, 7, 1)]
    """
    found, begun, kind = set(), 0, -1
    place = -1
    for place, tag in enumerate(tags):
        here = (tag - 1) // 2 if tag > OUTSIDE else -1
        if kind >= 0 and (here != kind or tag % 2 == 1):
            found.add((begun, place, kind))
            kind = -1
        if here >= 0 and kind < 0:
            begun, kind = place, here
    if kind >= 0:
        found.add((begun, place + 1, kind))
    return found
