"""What a bundle says of its run, without the data: numbers, their certainty, the front, and the cost."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_rec.errors import BundleError
from lora_rec.pipeline.evidence import PairedTest
from lora_rec.pipeline.slices import Slice, in_groups
from lora_rec.rank.ranker import Recommender
from lora_rec.rank.tradeoff import MEASUREMENTS, Front, Point, read_front
from lora_rec.recipe import Recipe
from lora_rec.schema import Manifest

SYSTEMS = {
    "popularity": ("popularity", "baseline"),
    "item_cosine": ("item-item cosine", "baseline"),
    "ease": ("EASE", "baseline"),
    "frozen_towers": ("towers, frozen", "before fine-tuning"),
    "trained_towers": ("towers, fine-tuned", "after fine-tuning"),
    "ranking_head": ("ranking head, by relevance", "after fine-tuning"),
    "ranking_head_diverse": ("ranking head, re-ranked", "after fine-tuning"),
}
"""System to what it is called on the page, and what it is."""
SERVED = "as_served"
"""The bundle as it is now, ranked again from the data; the others are of the run."""
SHORT = {
    "item_cosine": "item cosine",
    "frozen_towers": "frozen",
    "trained_towers": "fine-tuned",
    "ranking_head": "head",
    "ranking_head_diverse": "head, re-ranked",
    SERVED: "this bundle",
}
BASELINES = tuple(name for name, (_, kind) in SYSTEMS.items() if kind == "baseline")
KEPT = 0.95
"""Share of the relevance order's `ndcg` at which strategies are set side by side."""


@dataclass(frozen=True, eq=False)
class Run:
    """A bundle's run."""

    name: str
    """Of the bundle's folder."""
    recommender: Recommender
    recipe: Recipe
    recipe_text: str
    rows: dict[str, dict[str, float]]
    """System to its metrics on the test users."""
    intervals: dict[str, dict[str, tuple[float, float]]]
    """System to the 95 % intervals of some; empty in a bundle of an older version, like the next three."""
    tests: tuple[PairedTest, ...]
    slices: tuple[Slice, ...]
    data: dict[str, Any]
    """See `pipeline.data.describe_data`."""
    front: Front | None
    chosen: Point | None
    """What the front says of the bundle's own setting; None where it was not measured."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """Tower to the picture of its ranks, for AdaLoRA."""

    @property
    def manifest(self) -> Manifest:
        """Of the bundle."""
        return self.recommender.manifest

    @property
    def metrics(self) -> dict[str, Any]:
        """All of metrics.json."""
        return self.recommender.metrics

    @property
    def k(self) -> int:
        """Length of the lists that were judged."""
        return self.recipe.ranking.k

    @property
    def best_baseline(self) -> str | None:
        """The baseline with the highest `ndcg`."""
        there = [name for name in BASELINES if name in self.rows]
        return max(there, key=lambda name: self.rows[name][f"ndcg@{self.k}"], default=None)

    @property
    def own_setting(self) -> str:
        """How the bundle makes its lists, in words."""
        own = self.manifest.ranking
        if own.diversity == 0:
            return "by relevance alone"
        return f"{Point(own.strategy, own.space, own.diversity, {}).line}, diversity {own.diversity:.3g}"

    def test(self, system: str, other: str, metric: str = "ndcg") -> PairedTest | None:
        """Gives the paired test of two systems, if it was made."""
        wanted = (system, other, f"{metric}@{self.k}")
        return next((t for t in self.tests if (t.system, t.other, t.metric) == wanted), None)

    def short(self, system: str) -> str:
        """Gives a system's name where there is little room."""
        return SHORT.get(system) or self.label(system)

    def label(self, system: str) -> str:
        """Gives what a system is called on the page."""
        if system == SERVED:
            return f"this bundle as it serves: {self.own_setting}"
        return SYSTEMS[system][0] if system in SYSTEMS else system


def read_run(bundle: str | Path) -> Run:
    """Reads what a bundle says of its run.

    Raises:
        BundleError: there is no bundle, it is damaged, or it orders shown lists.
    """
    folder = Path(bundle)
    recommender = Recommender.load(folder)
    if "head.safetensors" not in recommender.manifest.files:
        raise BundleError(
            f"{bundle}: it orders lists that were shown, and the page is about ranked catalogues;"
            f" its numbers: lora-rec info {bundle}"
        )
    recipe = Recipe.load(folder / "recipe.yaml")
    metrics, k = recommender.metrics, recipe.ranking.k
    rows = {name: row for name, row in metrics.items() if isinstance(row, dict) and f"ndcg@{k}" in row}
    front = read_front(folder) if (folder / MEASUREMENTS).is_file() else None
    return Run(
        name=folder.resolve().name,
        recommender=recommender,
        recipe=recipe,
        recipe_text=(folder / "recipe.yaml").read_text(encoding="utf-8"),
        rows=rows,
        intervals=metrics.get("intervals", {}),
        tests=tuple(PairedTest(**tree) for tree in metrics.get("tests", [])),
        slices=in_groups(Slice.from_json(tree) for tree in metrics.get("slices", [])),
        data=metrics.get("data", {}),
        front=front,
        chosen=None if front is None else front.at(recommender.manifest.ranking),
        pictures={
            match[1]: (folder / name).read_bytes()
            for name in recommender.manifest.files
            if (match := re.fullmatch(r"pictures/ranks_(\w+)\.png", name))
        },
    )
