"""A column that says what each interaction was: a view, a purchase, a dislike. No run reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_rec.data.column_names import split_name

if TYPE_CHECKING:
    import pandas as pd

MOST_KINDS = 20
_NAMES = frozenset(
    "event events eventtype action actiontype activity behavior behaviour behaviortype".split()
)
_KINDS = frozenset(
    "view views viewed pageview detail impression click clicked cart addtocart basket removefromcart wishlist"
    " favorite favourite fav save saved buy bought purchase purchased order ordered transaction like liked"
    " dislike disliked upvote downvote skip skipped play played share shared return returned pv".split()
)


@dataclass(frozen=True)
class EventColumn:
    """The column, and its kinds of events."""

    column: str
    kinds: tuple[str, ...]
    """The most frequent first."""

    def __str__(self) -> str:
        kinds = ", ".join(self.kinds[:4]) + (", ..." if len(self.kinds) > 4 else "")
        return f"{self.column} ({kinds})"


def find_events(table: pd.DataFrame) -> EventColumn | None:
    """Finds a column of a few words of which two at least are kinds of events, or which is named like one.

    >>> import pandas as pd
    >>> str(find_events(pd.DataFrame({"user": ["a", "b", "c"], "what": ["view", "view", "add_to_cart"]})))
    'what (view, add_to_cart)'
    """
    for column in map(str, table.columns):
        cells = table[column].dropna()
        if not len(cells) or not isinstance(cells.iloc[0], str):
            continue
        kinds = [kind for kind in cells.astype(str).value_counts().index.tolist() if kind.strip()]
        if not 2 <= len(kinds) <= MOST_KINDS or len(kinds) == len(cells):
            continue
        known = sum("".join(split_name(kind)[-1:]) in _KINDS for kind in kinds)
        named = not _NAMES.isdisjoint(split_name(column)) and not any(kind.isdigit() for kind in kinds)
        if known >= 2 or named:
            return EventColumn(column, tuple(kinds))
    return None
