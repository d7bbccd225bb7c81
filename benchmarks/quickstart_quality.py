"""Runs the quickstart once per seed and writes benchmarks/results/quickstart_quality.json.

The data, the split and the baselines are the same for every seed; the adapters, the examples and the sequence
part of the head are drawn anew. `low` and `high` are the lowest and the highest seed, `value` their mean.

python benchmarks/quickstart_quality.py --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "quickstart_quality.json"
CONFIG = "recipes/configs/quickstart.yaml"
OURS = ("frozen_towers", "trained_towers", "ranking_head", "ranking_head_diverse")
PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "pyversity")


def run_seed(seed: int, folder: Path) -> dict[str, Any]:
    """Trains with one seed and gives its metrics.json."""
    output = folder / f"seed-{seed}"
    command = [sys.executable, "recipes/two_tower.py", CONFIG, f"train.seed={seed}", f"output={output}"]
    environment = os.environ | {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    subprocess.run(command, cwd=ROOT, check=True, env=environment)
    return json.loads((output / "metrics.json").read_text(encoding="utf-8"))


def rows_of(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives one row per system and metric, over the seeds."""
    rows = []
    for system, first in runs[0].items():
        if not isinstance(first, dict) or "ndcg@10" not in first:
            continue
        for metric in first:
            values = [run[system][metric] for run in runs]
            rows.append(
                {
                    "benchmark": "quickstart_quality",
                    "case": "movielens-small",
                    "system": f"lora_rec_{system}" if system in OURS else system,
                    "metric": metric,
                    "value": sum(values) / len(values),
                    "low": min(values),
                    "high": max(values),
                    "n": len(values),
                    "unit": "",
                }
            )
    return rows


def main() -> None:
    """Parses the command line, runs every seed, writes the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/quickstart_quality"), help="where the bundles go"
    )
    arguments = parser.parse_args()
    runs = [run_seed(seed, arguments.runs) for seed in arguments.seeds]
    header = {
        "benchmark": "quickstart_quality",
        "header": True,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "command": "python benchmarks/quickstart_quality.py --seeds " + " ".join(map(str, arguments.seeds)),
        "date": datetime.date.today().isoformat(),
        "seeds": arguments.seeds,
        "chosen": [run["chosen"] for run in runs],
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps([header, *rows_of(runs)], indent=1) + "\n", encoding="utf-8")
    print(f"wrote {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
