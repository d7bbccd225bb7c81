"""The settings of a run without labels: one tower's adapter, a corpus or item texts, tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from lora_rec.config import dump_config, load_config, require
from lora_rec.data_section import DataSection
from lora_rec.recipe import CheckpointSection, TextSection
from lora_rec.task_sections import TasksSection
from lora_rec.tower_section import TowerSection

CLOSED_WAYS = {
    "none": "learns nothing",
    "prefix": "can neither be a tower's start nor be merged",
    "bottleneck": "can neither be a tower's start nor be merged",
}
"""Adapters with which nothing could go on, and why."""


@dataclass(frozen=True)
class CorpusSection:
    """Any texts of the domain: descriptions, reviews, posts."""

    path: str
    """A text file with one text a line, where an empty line parts documents; or a table (CSV, TSV, JSON
    Lines, Parquet), one row per text. A text longer than `tower.max_tokens` is cut: part long ones before."""
    text_column: str = "text"
    """Column of the table."""
    group_column: str | None = None
    """Rows alike in it follow each other: a document, a basket, a user. Without it, neighbouring rows do."""


@dataclass(frozen=True)
class PretrainSection:
    """Training of the adapter."""

    epochs: int = 3
    """Passes over the task with the most examples; the others go round more often."""
    batch_size: int = 64
    """Examples of each task in one step, over all processes."""
    learning_rate: float = 1e-3
    """Peak rate of the adapter and of what the tasks need beside it."""
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    """Share of the steps over which the rate rises; it then falls to zero along a cosine."""
    max_gradient_norm: float = 1.0
    held_out: float = 0.1
    """Share of texts and histories, 2,000 at most, that is not learned from: each task is measured there."""
    token_budget: int = 4096
    """Padded tokens in one micro-batch: sets the memory, not the result, but for the draws of dropout."""
    patience: int = 2
    """Epochs without a better held-out loss before training stops."""
    prefix_cache: bool = True
    """Keep what the frozen layers give on disk, for the tasks that read the same texts in every epoch."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks ranges."""
        counts = [
            (getattr(self, n) >= 1, f"{n}: {getattr(self, n)} is below 1") for n in ("epochs", "patience")
        ]
        rates = ("learning_rate", "max_gradient_norm")
        checks = counts + [(getattr(self, n) > 0, f"{n}: {getattr(self, n)} is not positive") for n in rates]
        checks += [
            (self.batch_size >= 2, f"batch_size: {self.batch_size} is below 2"),
            (self.weight_decay >= 0, f"weight_decay: {self.weight_decay} is negative"),
            (0 <= self.warmup_share < 1, f"warmup_share: {self.warmup_share} is not in [0, 1)"),
            (0 < self.held_out < 1, f"held_out: {self.held_out} is not between 0 and 1"),
            (self.token_budget >= 16, f"token_budget: {self.token_budget} is below 16"),
            (0 <= self.seed < 2**32, f"seed: {self.seed} is not in 0..{2**32 - 1}"),
        ]
        require(checks)


@dataclass(frozen=True)
class PretrainRecipe:
    """One run, from texts to an adapter that `start_from` takes."""

    ELSEWHERE: ClassVar[dict[str, str]] = dict.fromkeys(
        ("user_tower", "item_tower", "objectives", "regularisation", "head", "ranking"),
        "recipes/two_tower.py reads it; recipes/pretrain.py trains one tower, and on tasks",
    )

    output: str
    """Folder of the adapter; replaced as a whole when the run is done."""
    tasks: TasksSection
    data: DataSection | None = None
    """As in the recipe that goes on from here. Of the histories only what its split gives for training is
    read, of the items all texts, also those of items that come later."""
    corpus: CorpusSection | None = None
    """Texts of any kind instead."""
    text: TextSection = field(default_factory=TextSection)
    tower: TowerSection = field(default_factory=TowerSection)
    train: PretrainSection = field(default_factory=PretrainSection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)

    def __post_init__(self) -> None:
        """Checks what concerns several sections."""
        plain = TextSection()
        names = ("item_template", "history_item_template", "friends_length", "n_shared_tags")
        # Those of a recipe that goes on may say more than is read here.
        unused = names if self.corpus is not None else ()
        given = [f"text.{name}" for name in unused if getattr(self.text, name) != getattr(plain, name)]
        reads = [
            f"tasks.{name}.reads"
            for name, section in self.tasks.chosen.items()
            if getattr(section, "reads", "items") != "items"
        ]
        closed = CLOSED_WAYS.get(self.tower.adapter, "")
        require(
            [
                (bool(self.tasks.chosen), f"tasks: none chosen; choose from {', '.join(self.tasks.known)}"),
                (bool(self.output.strip()), "output: empty; give a folder such as runs/domain"),
                (
                    (self.data is None) != (self.corpus is None),
                    "data, corpus: give one of them" + (", not both" if self.data is not None else ""),
                ),
                (
                    not given,
                    f"{', '.join(given)}: has no effect with a corpus, whose texts are read as they are;"
                    " leave it out",
                ),
                (
                    not reads or self.corpus is None,
                    f"{', '.join(reads)}: a corpus has no histories; leave it out",
                ),
                (not closed, f"tower.adapter: {self.tower.adapter!r} {closed}; use lora or adalora"),
            ]
        )

    @classmethod
    def load(cls, path: str | Path, *, overrides: Sequence[str] = ()) -> PretrainRecipe:
        """Reads a recipe; see `config.load_config` for overrides and errors."""
        return load_config(cls, path, overrides=overrides)

    def to_yaml(self) -> str:
        """Writes every setting, so that the text runs again as it is."""
        return dump_config(self)
