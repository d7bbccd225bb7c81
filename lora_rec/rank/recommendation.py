"""What a recommender gives: lists of items with titles, for one user or as a table for many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_rec.errors import missing_extra
from lora_rec.rank.explain import Explanation

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Recommendation:
    """One item of a list."""

    rank: int
    """Place in the list, from 1."""
    item_id: str
    score: float
    """Relevance; comparable within one list."""
    title: str
    explanation: Explanation | None = None
    """Where it was asked for; of the relevance, not of what re-ranking made of it."""


@dataclass(frozen=True)
class RecommendationTable:
    """The lists of many users, one row per recommended item."""

    user_ids: tuple[str, ...]
    rows: tuple[tuple[Recommendation, ...], ...]
    """One list per user."""

    def __len__(self) -> int:
        return sum(len(row) for row in self.rows)

    def to_columns(self) -> dict[str, list[Any]]:
        """Gives the columns user_id, rank, item_id, score and title."""
        columns: dict[str, list[Any]] = {"user_id": [], "rank": [], "item_id": [], "score": [], "title": []}
        for user_id, row in zip(self.user_ids, self.rows, strict=True):
            for item in row:
                for name, value in zip(
                    columns, (user_id, item.rank, item.item_id, item.score, item.title), strict=True
                ):
                    columns[name].append(value)
        return columns

    def to_pandas(self) -> pd.DataFrame:
        """Gives the columns as a data frame; needs pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise missing_extra("pandas", extra="train") from error

        return pd.DataFrame(self.to_columns())
