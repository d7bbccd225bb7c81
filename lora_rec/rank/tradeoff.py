"""Chooses between relevance and diversity among the settings that a run measured on validation users."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lora_rec.errors import ArgumentError, BundleError
from lora_rec.rank.chances import Chances
from lora_rec.schema import VECTOR_STRATEGIES, RankingManifest

MEASUREMENTS = "diversity.json"
MEASURES = ("ild", "ild_text", "coverage", "novelty")
PLAIN = "plain"
"""Stands for the relevance order where a strategy is named."""


@dataclass(frozen=True)
class Point:
    """One setting of re-ranking and what its lists were like."""

    strategy: str
    """`plain` for the relevance order."""
    space: str
    diversity: float
    values: dict[str, float]
    """Means over validation users: `ndcg`, `recall`, `ild`, `ild_text`, `novelty`, and `coverage`."""

    @property
    def line(self) -> str:
        """What changes along one curve of the front, as text."""
        return f"{self.strategy}, {self.space}" if self.strategy in VECTOR_STRATEGIES else self.strategy


@dataclass(frozen=True)
class Front:
    """Every setting that was measured, on the same users and candidates."""

    k: int
    n_users: int
    n_candidates: int
    plain: Point
    points: tuple[Point, ...]
    chances: Chances | None = None
    """What the scores were turned into chances by; None where they were scaled for each user."""

    def to_json(self) -> dict[str, Any]:
        """Gives plain dictionaries and lists; nothing in it concerns a single user."""
        return {
            "k": self.k,
            "n_users": self.n_users,
            "n_candidates": self.n_candidates,
            "chances": None if self.chances is None else asdict(self.chances),
            "plain": self.plain.values,
            "points": [
                {"strategy": p.strategy, "space": p.space, "diversity": p.diversity, **p.values}
                for p in self.points
            ],
        }

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Front:
        """Reads `to_json`'s result."""
        points = []
        for row in tree["points"]:
            values = {name: row[name] for name in tree["plain"]}
            points.append(Point(row["strategy"], row["space"], row["diversity"], values))
        plain = Point(PLAIN, "", 0.0, tree["plain"])
        # Bundles of older versions have none.
        chances = Chances(**tree["chances"]) if tree.get("chances") else None
        return cls(tree["k"], tree["n_users"], tree["n_candidates"], plain, tuple(points), chances)

    def kept(self, point: Point) -> float:
        """Gives the share of the relevance order's `ndcg` that a setting keeps; 1 where there is none."""
        whole = self.plain.values["ndcg"]
        return point.values["ndcg"] / whole if whole > 0 else 1.0

    def lines(self) -> dict[str, list[Point]]:
        """Gives the points of each strategy in each space, in order of strength."""
        lines: dict[str, list[Point]] = {}
        for point in self.points:
            lines.setdefault(point.line, []).append(point)
        return lines

    def best_of_line(self, line: str, *, keep: float, measure: str = "ild") -> Point | None:
        """Gives the most diverse point of one line that keeps enough relevance; None where none does."""
        allowed = [p for p in self.lines()[line] if self.kept(p) >= keep]
        return max(allowed, key=lambda p: p.values[measure], default=None)

    def at(self, ranking: RankingManifest) -> Point | None:
        """Gives what was measured at a bundle's own setting; None where that was not measured."""
        if ranking.diversity == 0:
            return self.plain
        wanted = Point(ranking.strategy, ranking.space, ranking.diversity, {})
        same = (p for p in self.points if (p.line, p.diversity) == (wanted.line, wanted.diversity))
        return next(same, None)

    def most_diverse(self, *, keep: float, measure: str = "ild") -> Point:
        """Gives the most diverse setting that keeps enough relevance; plain where none does.

        Args:
            keep: share of the relevance order's `ndcg`, in (0, 1].
            measure: one of `MEASURES`.

        Raises:
            ArgumentError: keep or measure is none of these.
        """
        if not 0 < keep <= 1:
            raise ArgumentError(f"keep: {keep} is not in (0, 1]; 0.95 keeps 95 % of the relevance")
        _check_measure(measure)
        allowed = [p for p in (self.plain, *self.points) if self.kept(p) >= keep]
        return max(allowed, key=lambda p: (p.values[measure], p.values["ndcg"]))

    def most_relevant(self, *, least: float, measure: str = "ild") -> Point:
        """Gives the most relevant setting that is diverse enough.

        Args:
            least: value of the measure that is reached at least.
            measure: one of `MEASURES`.

        Raises:
            ArgumentError: no setting reaches it; the most diverse one is named.
        """
        _check_measure(measure)
        every = (self.plain, *self.points)
        allowed = [p for p in every if p.values[measure] >= least]
        if not allowed:
            best = max(every, key=lambda p: p.values[measure])
            raise ArgumentError(
                f"least-diversity: no setting reaches {measure} {least:g}; the most that was measured is"
                f" {best.values[measure]:.4f} ({best.line}, diversity {best.diversity:g}, which keeps"
                f" {self.kept(best):.1%} of ndcg@{self.k}); ask for less"
            )
        return max(allowed, key=lambda p: (p.values["ndcg"], p.values[measure]))


def read_front(folder: str | Path) -> Front:
    """Reads what the run of a bundle measured.

    Raises:
        BundleError: the bundle is of an older version.
    """
    file = Path(folder) / MEASUREMENTS
    if not file.is_file():
        raise BundleError(
            f"{folder}: no {MEASUREMENTS}, so nothing is known of its trade-off; run its recipe again, which"
            " measures it with the head as it was before it saw what the validation users took"
        )
    return Front.from_json(json.loads(file.read_text(encoding="utf-8")))


def store_setting(ranking: RankingManifest, setting: Point) -> RankingManifest:
    """Makes a setting a bundle's own; plain is diversity 0 and leaves strategy and space as they are."""
    if setting.strategy == PLAIN:
        return replace(ranking, diversity=0.0)
    return replace(ranking, strategy=setting.strategy, space=setting.space, diversity=setting.diversity)


def _check_measure(measure: str) -> None:
    if measure not in MEASURES:
        raise ArgumentError(f"measure: {measure!r} is unknown; give one of {', '.join(MEASURES)}")
