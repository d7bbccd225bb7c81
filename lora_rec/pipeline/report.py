"""What a run prints and keeps of itself."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lora_rec.data.dataset import Dataset, Split
from lora_rec.metrics import format_table
from lora_rec.pipeline.evidence import collect_evidence
from lora_rec.pipeline.head import FittedHead
from lora_rec.pipeline.plan_memory import peak_memory
from lora_rec.pipeline.ranking import Comparison, LinearChoice
from lora_rec.rank.categories import Categories
from lora_rec.rank.ranker import Recommender
from lora_rec.rank.tradeoff import Point
from lora_rec.towers.two_tower import TwoTower
from lora_rec.train.loop import TrainingResult

logger = logging.getLogger(__name__)


class Stages:
    """Wall time of each stage, and the peak memory of the process at its end."""

    def __init__(self) -> None:
        """Starts with none."""
        self.seconds: dict[str, float] = {}
        self.peak_gb: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times what runs inside."""
        logger.info("%s ...", name)
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began
        self.peak_gb[name] = peak_memory() / 1e9
        logger.info("%s: %.1f s, peak memory so far %.2f GB", name, self.seconds[name], self.peak_gb[name])

    def to_json(self) -> dict[str, Any]:
        """Gives what the run has cost so far."""
        return {"seconds": self.seconds, "peak_memory_gb": max(self.peak_gb.values(), default=0.0)}


def collect_metrics(
    comparison: Comparison,
    model: TwoTower,
    training: TrainingResult,
    ease: LinearChoice,
    fitted: FittedHead,
    *,
    categories: Categories | None,
) -> dict[str, Any]:
    """Gives what metrics.json holds: a row per system, how sure it is, and how all was chosen and trained."""
    return {
        **comparison.table(),
        **collect_evidence(comparison, categories=categories),
        "chosen": {
            "ease": asdict(ease),
            "ranking_head": fitted.numbers(),
        },
        **collect_training(model, training),
    }


def collect_training(model: TwoTower, training: TrainingResult) -> dict[str, Any]:
    """Gives how the towers were trained, and how much of them was."""
    towers = {name: asdict(getattr(model, name).count_parameters()) for name in ("user_tower", "item_tower")}
    trained, total = (sum(t[key] for t in towers.values()) for key in ("trained", "total"))
    return {
        "training": asdict(training),
        "parameters": {**towers, "trained_share": trained / total},
    }


def print_report(
    folder: Path,
    metrics: dict[str, Any],
    stages: Stages,
    *,
    dataset: Dataset,
    split: Split,
    setting: Point,
    k: int,
) -> None:
    """Prints the table, what the run cost, and ten items for one user, read back from the bundle."""
    systems = {name: row for name, row in metrics.items() if f"ndcg@{k}" in row}
    names = [f"{name}@{k}" for name in ("recall", "ndcg", "ild", "coverage")]
    columns = [*names, *(f"{name} (rare)" for name in names)]
    say(f"\nTest: {len(split.test):,} users, the whole catalogue of {split.n_items:,} items ranked for each")
    say(format_table(systems, columns=[c for c in columns if all(c in row for row in systems.values())]))
    say(
        "(rare): targets, or for coverage items, with at most two interactions before the test;"
        f" ranking_head_diverse: {setting.line}, diversity {setting.diversity:g}"
    )
    print_costs(folder, metrics, stages)
    _print_one_user(Recommender.load(folder), dataset, split, k=k)


def print_costs(folder: Path, metrics: dict[str, Any], stages: Stages) -> None:
    """Prints what was learned, and what the run and its bundle took."""
    parameters = metrics["parameters"]
    for name in ("user_tower", "item_tower"):
        part = parameters[name]
        say(
            f"{name}: {part['trained']:,} of {part['total']:,} parameters learned"
            f" ({part['trained'] / part['total']:.2%})"
        )
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    say(
        "wall time: "
        + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in stages.seconds.items())
        + f"; {sum(stages.seconds.values()):.0f} s in all, peak memory {max(stages.peak_gb.values()):.2f} GB"
    )
    say(
        f"bundle: {folder}, {size / 1e6:.1f} MB; parameters learned in all: {parameters['trained_share']:.2%}"
    )


def _print_one_user(rec: Recommender, dataset: Dataset, split: Split, *, k: int) -> None:
    lengths = split.test.histories.counts
    user = int(np.argsort(lengths, kind="stable")[len(lengths) // 2])  # a history of median length
    history = [str(dataset.item_ids[item]) for item in split.test.histories[user]]
    say(
        f"\nuser {dataset.user_ids[split.test.users[user]]} took, newest last: ... "
        + "; ".join(_titles(rec, history[-5:]))
    )
    taken = [str(dataset.item_ids[item]) for item in split.test.targets[user]]
    say("and next took: " + "; ".join(_titles(rec, taken)) + "\nrecommended:")
    for item in rec.recommend(history, k=k):
        say(f"{item.rank:>4}. {item.title}  [{item.item_id}, {item.score:.3f}]")


def _titles(rec: Recommender, item_ids: list[str]) -> list[str]:
    return [rec.titles[i] for i in rec.find_items(item_ids)]


def say(text: str) -> None:
    """Writes a line for the person at the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
