"""What `bundle.json` holds: plain dataclasses, read and written as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lora_rec.errors import BundleError

FORMAT_VERSION = 2
"""2: a bundle may hold one tower alone, or lack item texts or vectors, and names its data and licences."""
TOWERS = ("user_tower", "item_tower")
ITEM_TEXTS, ITEM_VECTORS = "item_texts", "item_vectors"
LEFT_OUT = (ITEM_TEXTS, ITEM_VECTORS)
"""What a bundle can lack by its maker's wish."""
PROJECTIONS = "projections.safetensors"
OWN_FORMAT = ("bottleneck", "full")
"""Adapters that plain peft does not know."""
OF_CATEGORY = "category of the target"
"""The parts of test users in metrics.json that bear names of categories, which are item texts."""

Strategy = Literal["mmr", "msd", "dpp", "ssd", "cover", "xquad", "calibrated", "novel"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
"""How a list is re-ranked, see `rank.strategies`; here, since recipes, bundles and the command name them."""
CATEGORY_STRATEGIES = ("xquad", "calibrated")
"""Those that look at categories."""
NOVEL = "novel"
"""The one that looks at how often items were taken."""
VECTOR_STRATEGIES = tuple(name for name in STRATEGIES if name not in (*CATEGORY_STRATEGIES, NOVEL))
"""Those that look at vectors, and so in one of `SPACES`."""
Space = Literal["text", "factors", "both"]
SPACES: tuple[str, ...] = get_args(Space)
"""The vectors that say how alike two items are, see `rank.spaces`."""


@dataclass(frozen=True)
class TowerManifest:
    """What is needed to build a tower again."""

    backbone: str
    """What `load_backbone` takes: a Hub id or package:NAME; the folder's name where it was a local folder."""
    base_model_id: str
    revision: str | None
    fingerprint: str
    """SHA-256 over configuration, weights and tokenizer of the base."""
    kind: str
    precision: str
    pooling: str
    trained_layers: int | None
    """None for all."""
    hidden_size: int
    max_tokens: int
    compute: str | None = None
    """For 8 and 4 bit, the type of what is not quantised."""
    adapter: str = "lora"
    """What was trained; `none` where no epoch beat the frozen tower, which then has no adapter."""
    adapter_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    licence: str | None = None
    """Of the base, as its maker's card has it; None where nothing is known."""

    @property
    def is_on_hub(self) -> bool:
        """Whether `base_model_id` is an id on the Hub, not the name of a local folder."""
        return self.backbone.startswith("package:") or self.revision is not None


@dataclass(frozen=True)
class TextManifest:
    """How items and histories were written down."""

    item_template: str
    history_item_template: str
    history_length: int
    newest_first: bool


@dataclass(frozen=True)
class RankingManifest:
    """Defaults of `recommend`."""

    strategy: str
    n_candidates: int
    diversity: float = 0.0
    """0 keeps the relevance order, 1 is the most diverse."""
    space: str = "text"
    """One of `SPACES`."""
    steepness: float | None = None
    """With the next what turns scores into chances, see `rank.chances`; None in older bundles."""
    typical_chance: float | None = None
    category_field: str | None = None
    """Item field with categories, if there is one."""
    category_separator: str = "|"
    """What parts the categories of one item."""


@dataclass(frozen=True)
class DataManifest:
    """What was learned from."""

    name: str
    licence: str | None = None
    """Its terms, in a sentence; None where nothing is known."""
    home: str | None = None
    """Its publisher's page."""
    dataset_id: str | None = None
    """What the Hub calls it; None for tables of one's own."""


@dataclass(frozen=True)
class Manifest:
    """The whole of `bundle.json`."""

    format_version: int
    width: int
    n_items: int
    user_tower: TowerManifest | None
    """None in a bundle that holds the other tower alone."""
    item_tower: TowerManifest | None
    text: TextManifest
    ranking: RankingManifest
    versions: dict[str, str]
    """Package to version that wrote the bundle."""
    files: dict[str, str]
    """Path inside the bundle to SHA-256."""
    data: DataManifest | None = None
    """None in bundles of format 1."""
    left_out: list[str] = dataclasses.field(default_factory=list)
    """Of `LEFT_OUT`, what its maker did not push."""

    @property
    def towers(self) -> dict[str, TowerManifest]:
        """The towers that are there, by name."""
        both = {name: getattr(self, name) for name in TOWERS}
        return {name: tower for name, tower in both.items() if tower is not None}

    def tower(self, name: str) -> TowerManifest:
        """Gives one tower.

        Raises:
            BundleError: the bundle does not hold it.
        """
        if name not in self.towers:
            held = " and ".join(self.towers) or "none"
            raise BundleError(f"{name}: this bundle does not hold it, it holds {held}; get the whole bundle")
        return self.towers[name]

    def to_json(self) -> dict[str, Any]:
        """Gives plain dictionaries."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], *, where: str) -> Manifest:
        """Reads `to_json`'s result.

        Raises:
            BundleError: the format is newer, or a key is missing, unknown or of the wrong type.
        """
        version = tree.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise BundleError(
                f"{where}: format version {version!r}, but this lora_rec reads up to {FORMAT_VERSION};"
                " run: pip install --upgrade lora-rec"
            )
        try:
            fields = dict(tree)
            for name in TOWERS:
                fields[name] = None if tree[name] is None else TowerManifest(**tree[name])
            fields["text"] = TextManifest(**tree["text"])
            fields["ranking"] = RankingManifest(**tree["ranking"])
            if tree.get("data") is not None:
                fields["data"] = DataManifest(**tree["data"])
            if not all(isinstance(part, str) for pair in fields["files"].items() for part in pair):
                raise TypeError("files: a name or a digest is no text")
            if not set(fields.get("left_out", [])) <= set(LEFT_OUT):
                raise TypeError(f"left_out: {fields['left_out']!r}")
            return cls(**fields)
        except (AttributeError, KeyError, TypeError) as error:
            raise BundleError(
                f"{where}: bundle.json is not as it was written ({error}); get the bundle again"
            ) from error
