"""What a card says in numbers: the results that it shows, and the metadata that the Hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from lora_rec.schema import Manifest

COLUMNS = ("auc", "recall", "ndcg", "ild", "ild_factors", "coverage", "novelty")
PIPELINE_TAG = "feature-extraction"
"""Of the Hub's tasks, what the towers do: recommending is none of them."""
INDEXED = ("frozen_towers", "trained_towers", "ranking_head", "ranking_head_diverse")


@dataclass(frozen=True)
class Results:
    """The part of metrics.json that a card shows."""

    systems: dict[str, dict[str, float]]
    """System to its metrics."""
    columns: list[str]
    """Metrics that every system has, e.g. `ndcg@10`."""
    intervals: Mapping[str, Mapping[str, Any]]
    parameters: Mapping[str, Any]
    """Tower to how much of it was learned."""
    data: Mapping[str, Any]

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Results:
        """Reads what metrics.json holds; bundles of format 1 lack the data and the intervals."""
        ndcg = re.compile(r"ndcg@\d+")
        systems = {
            name: row
            for name, row in metrics.items()
            if isinstance(row, dict) and any(ndcg.fullmatch(key) for key in row)
        }
        first = next(iter(systems.values()), {})
        columns = [
            key
            for name in COLUMNS
            for key in first
            if re.fullmatch(rf"{name}(@\d+)?", key) and all(key in row for row in systems.values())
        ]
        parts = {name: metrics.get(name) or {} for name in ("intervals", "parameters", "data")}
        return cls(systems, columns, **parts)

    @property
    def n_users(self) -> int | None:
        """Test users."""
        return (self.data.get("kept") or {}).get("test", {}).get("users")

    def interval(self, system: str, metric: str) -> tuple[float, float] | None:
        """Gives the 95 % interval of a mean over users, if it was written down."""
        found = self.intervals.get(system, {}).get(metric)
        return None if found is None else (float(found[0]), float(found[1]))


def metadata(manifest: Manifest, results: Results, *, name: str, licence: str | None) -> str:
    """Gives the YAML at the head of the card, valid for the Hub.

    Args:
        manifest: of what is pushed.
        results: of its metrics.json.
        name: OWNER/NAME of the repository.
        licence: of the bundle, by the Hub's name.
    """
    towers = manifest.towers.values()
    bases = list(dict.fromkeys(tower.base_model_id for tower in towers if tower.is_on_hub))
    adapters = list(dict.fromkeys(tower.adapter for tower in towers if tower.adapter != "none"))
    dataset = manifest.data.dataset_id if manifest.data else None
    tree: dict[str, Any] = {
        "license": licence,
        "library_name": "lora_rec",
        "pipeline_tag": PIPELINE_TAG,
        "base_model": bases,
        "base_model_relation": "adapter" if bases else None,
        "datasets": [dataset] if dataset else [],
        "tags": ["recommender-system", "two-tower", "reranking", "diversity", "peft", *adapters],
        "model-index": _model_index(manifest, results, name),
    }
    kept = {key: value for key, value in tree.items() if value}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _model_index(manifest: Manifest, results: Results, name: str) -> list[dict[str, Any]]:
    data = manifest.data
    metrics = []
    for system in (s for s in INDEXED if s in results.systems):
        for column in results.columns:
            interval = results.interval(system, column)
            metrics.append(
                {
                    "type": column.replace("@", "_at_"),
                    "value": round(float(results.systems[system][column]), 6),
                    "name": f"{column}, {system}",
                    **({"args": {"interval_95": [round(x, 6) for x in interval]}} if interval else {}),
                }
            )
    if not metrics:
        return []
    title = data.name if data else "not stated"
    result = {
        "task": {"type": PIPELINE_TAG, "name": "Recommendation"},
        "dataset": {
            "name": title,
            "type": (data and data.dataset_id)
            or re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
            or "own-tables",
            "split": "test",
        },
        "metrics": metrics,
    }
    return [{"name": name.split("/")[1], "results": [result]}]
