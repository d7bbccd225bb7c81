"""The settings of what a tower learns without labels: a section for each task."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from lora_rec.config import require

Reads = Literal["items", "histories", "both"]


def _shares(section: Any, *names: str) -> list[tuple[bool, str]]:
    values = {name: getattr(section, name) for name in names}
    return [(0 < value < 1, f"{name}: {value} is not between 0 and 1") for name, value in values.items()]


def _positive(section: Any, *names: str) -> list[tuple[bool, str]]:
    values = {name: getattr(section, name) for name in ("weight", *names)}
    return [(value > 0, f"{name}: {value} is not positive") for name, value in values.items()]


@dataclass(frozen=True)
class MlmSection:
    """Masked language modelling (Devlin et al. 2019, arXiv 1810.04805): for BERT types."""

    weight: float = 1.0
    """Of the task's loss in the sum."""
    reads: Reads = "items"
    """Item texts, or histories as the user tower reads them, or both."""
    masked_share: float = 0.15
    """Of a text's tokens, one at least: 80 % become the mask token, 10 % a random one, 10 % stay."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        require(_positive(self) + _shares(self, "masked_share"))


@dataclass(frozen=True)
class ClmSection:
    """Causal language modelling, each token from those before it: for GPT types."""

    weight: float = 1.0
    reads: Reads = "items"
    """Item texts, or histories as the user tower reads them, or both."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        require(_positive(self))


@dataclass(frozen=True)
class NspSection:
    """Next-sentence prediction (arXiv 1810.04805): do these two follow each other in a history or corpus?"""

    weight: float = 1.0
    pairs_per_sequence: int = 10
    """Pairs of neighbours drawn from each history or group of rows, and as many pairs that are none."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        require(_positive(self, "pairs_per_sequence"))


@dataclass(frozen=True)
class CategorySection:
    """Text classification: a category from the text, in which it is not written."""

    field: str
    """Field of the item table, or column of the corpus; left out of the text that is read."""
    weight: float = 1.0
    separator: str | None = None
    """What parts the categories of one item, e.g. "|"; each item has one when left out."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        require([*_positive(self), (self.separator != "", "separator: empty; give a text, or leave it out")])


@dataclass(frozen=True)
class EntitiesSection:
    """Entity recognition: which tokens of an item's text are names, and of what kind."""

    weight: float = 1.0
    columns: tuple[str, ...] = ()
    """Fields whose values are names, where they stand in the item's text: the kind is the field's name."""
    separator: str | None = None
    """What parts the names in one cell of these fields; each cell is one name when left out."""
    gazetteer: str | None = None
    """Path of a table with the columns `name` and `kind`: brands, people, places."""

    def __post_init__(self) -> None:
        """Checks that there is something to find."""
        require(
            [
                *_positive(self),
                (
                    bool(self.columns) or self.gazetteer is not None,
                    "columns, gazetteer: both missing; name columns of names, or a table of names",
                ),
                (
                    self.separator is None or bool(self.columns),
                    "separator: has no effect without columns; leave it out",
                ),
                (self.separator != "", "separator: empty; give a text, or leave it out"),
            ]
        )


@dataclass(frozen=True)
class HistoryViewsSection:
    """Two views of a history are to be alike, and unlike those of others (CL4SRec, arXiv 2010.14395)."""

    weight: float = 1.0
    temperature: float = 0.1
    crop_share: float = 0.6
    """Of the history that a crop keeps."""
    mask_share: float = 0.3
    """Of the items that a mask hides."""
    reorder_share: float = 0.6
    """Of the history that is shuffled."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        shares = _shares(self, "crop_share", "mask_share", "reorder_share")
        require(_positive(self, "temperature") + shares)


@dataclass(frozen=True)
class ItemViewsSection:
    """Two views of an item, without some fields and words, are to be alike, and unlike those of others."""

    weight: float = 1.0
    temperature: float = 0.1
    field_dropout: float = 0.3
    """Chance of each field to be left out of a view; one stays."""
    word_dropout: float = 0.2
    """Chance of each word to be left out of a view; one stays."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        checks = [
            (0 <= getattr(self, name) < 1, f"{name}: {getattr(self, name)} is not in [0, 1)")
            for name in ("field_dropout", "word_dropout")
        ]
        nothing = self.field_dropout == self.word_dropout == 0
        checks += [
            (not nothing, "field_dropout, word_dropout: both 0, so both views are the same; raise one")
        ]
        require(_positive(self, "temperature") + checks)


@dataclass(frozen=True)
class TasksSection:
    """What the tower learns: one task or several, whose weighted losses are added up."""

    mlm: MlmSection | None = None
    clm: ClmSection | None = None
    nsp: NspSection | None = None
    category: CategorySection | None = None
    entities: EntitiesSection | None = None
    history_views: HistoryViewsSection | None = None
    item_views: ItemViewsSection | None = None

    @property
    def known(self) -> tuple[str, ...]:
        """The names of all tasks."""
        return tuple(field.name for field in fields(self))

    @property
    def chosen(self) -> dict[str, Any]:
        """The sections of the chosen tasks by name."""
        return {name: getattr(self, name) for name in self.known if getattr(self, name) is not None}
