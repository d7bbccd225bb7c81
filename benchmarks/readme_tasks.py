"""The README's tables of tasks and of few labels."""

from __future__ import annotations

import json
from typing import Any

from readme_speed import RESULTS, read_cells


def few_labels_table() -> str:
    """Gives AUC by labels and system, each with its interval over users."""
    source, cells = read_cells("few_labels")
    names = list(dict.fromkeys(system for case, system, _ in cells if not case.startswith("0 ")))
    lines = ["| labels | " + " | ".join(f"`{name}`" for name in names) + " |"]
    lines.append("| --: |" + " --: |" * len(names))
    for case in dict.fromkeys(case for case, _, _ in cells):
        found = [cells.get((case, name, "auc")) for name in names]
        lines.append(f"| {case.split()[0]} | " + " | ".join(_interval(row) for row in found) + " |")
    alone = [system for case, system, metric in cells if case.startswith("0 ") and metric == "auc"]
    alone = [f"`{name}` {_interval(cells['0 labels', name, 'auc'])}" for name in alone if name not in names]
    n_seeds = max(row["n"] for row in cells.values())
    seeds = f"mean of {n_seeds} seeds" if n_seeds > 1 else "one seed"
    return "\n".join(
        [*lines, "", f"Without a label: {', '.join(alone)}.", "", f"{source} {seeds.capitalize()}."]
    )


def _interval(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f})"


def tasks_table() -> str:
    """Gives a row per task and set: what it changed against the default, losses too."""
    header, *rows = json.loads((RESULTS / "tasks.json").read_text(encoding="utf-8"))
    cells = {(row["case"], row["metric"]): row for row in rows}
    lines = [
        "| set | task | ndcg@10 | gain | auc | change of auc | seconds |",
        "| :-- | :-- |" + " --: |" * 5,
    ]
    for case in dict.fromkeys(row["case"] for row in rows):
        name, _, task = case.partition(" ")
        base = task == "base"
        gain = "–" if base else _gain_of_seeds(cells[case, "gain"], "+.1%")
        change = (
            "–"
            if base or (case, "auc gain") not in cells
            else _gain_of_seeds(cells[case, "auc gain"], "+.4f")
        )
        auc = _value(cells[case, "auc"]) if (case, "auc") in cells else "–"
        values = (_value(cells[case, "ndcg@10"]), gain, auc, change, f"{cells[case, 'seconds']['value']:.0f}")
        lines.append(f"| {name} | {task} | " + " | ".join(values) + " |")
    whole = max((row["n"] for row in rows), default=0)
    partial = sorted({row["case"] for row in rows if row["n"] < whole})
    note = f" One seed alone: {', '.join(partial)}." if partial else ""
    seeds = f"{whole} seeds" if whole > 1 else "one seed"
    source = f"`{header['command']}`, {header['date']}, {header['machine']}, {seeds}.{note}"
    return "\n".join([*lines, "", source])


def _gain_of_seeds(row: dict[str, float], form: str) -> str:
    value = f"{row['value']:{form}}"
    return value if row["n"] == 1 else f"{value} ({row['low']:{form}} to {row['high']:{form}})"


def _value(row: dict[str, float]) -> str:
    value = f"{row['value']:.4f}"
    return value if row["low"] == row["high"] else f"{value} ({row['low']:.4f}–{row['high']:.4f})"
