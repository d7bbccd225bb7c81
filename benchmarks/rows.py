"""The one form of all results: a header, then a row per case, system and metric."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "numpy")


def header_of(benchmark: str, command: str) -> dict[str, Any]:
    """Gives what was run where, with which versions and when."""
    return {
        "benchmark": benchmark,
        "header": True,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_accelerator()}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "command": command,
        "date": datetime.date.today().isoformat(),
    }


def _accelerator() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def row(
    benchmark: str,
    case: str,
    system: str,
    metric: str,
    values: Sequence[float],
    *,
    value: float | None = None,
    unit: str = "",
) -> dict[str, Any]:
    """Gives one result over seeds or runs: their mean unless said otherwise, the lowest and the highest."""
    mean = sum(values) / len(values) if value is None else value
    names = {"benchmark": benchmark, "case": case, "system": system, "metric": metric}
    return names | {"value": mean, "low": min(values), "high": max(values), "n": len(values), "unit": unit}


def of_one_run(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives rows whose values are steps or queries of one run, which is what `n` counts."""
    return [line | {"n": 1} for line in rows]


def write_rows(benchmark: str, header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Writes benchmarks/results/BENCHMARK.json."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{benchmark}.json"
    file.write_text(json.dumps([header, *rows], indent=1) + "\n", encoding="utf-8")
    print(f"wrote benchmarks/results/{file.name}")


def merge_rows(benchmark: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives the rows of the results as they lie there, each replaced by the new row of the same names."""
    file = RESULTS / f"{benchmark}.json"
    old = json.loads(file.read_text(encoding="utf-8"))[1:] if file.exists() else []
    found = {tuple(line[name] for name in ("case", "system", "metric")): line for line in (*old, *rows)}
    return list(found.values())
