"""Runs the quickstart once per seed and writes benchmarks/results/quickstart_quality.json.

The data, the split and the baselines are the same for every seed; the adapters, the examples and the sequence
part of the head are drawn anew. `low` and `high` are the lowest and the highest seed, `value` their mean. For
`ndcg@10 over ease`, the mean of the seeds minus EASE, they are a 95 % bootstrap interval over the test users.

python benchmarks/quickstart_quality.py --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rows import header_of, row, write_rows

from lora_rec.metrics import ndcg_at_k, paired_difference
from lora_rec.pipeline.data import prepare_data
from lora_rec.pipeline.ranking import LinearChoice, fit_linear
from lora_rec.rank.ranker import Recommender
from lora_rec.rank.search import top_k
from lora_rec.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
NAME, CASE = "quickstart_quality", "movielens-small"
CONFIG = "recipes/configs/quickstart.yaml"
OURS = ("frozen_towers", "trained_towers", "ranking_head", "ranking_head_diverse")


def run_seed(seed: int, output: Path, *, reuse: bool) -> dict[str, Any]:
    """Trains with one seed, unless its bundle may be reused, and gives its metrics.json."""
    if reuse:
        return Recommender.load(output).metrics
    command = [sys.executable, "recipes/two_tower.py", CONFIG, f"train.seed={seed}", f"output={output}"]
    subprocess.run(command, cwd=ROOT, check=True)
    return Recommender.load(output).metrics


def rows_of(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives one row per system and metric, over the seeds."""
    rows = []
    for system, first in runs[0].items():
        if not isinstance(first, dict) or "ndcg@10" not in first:
            continue
        for metric in first:
            name = f"lora_rec_{system}" if system in OURS else system
            rows.append(row(NAME, CASE, name, metric, [run[system][metric] for run in runs]))
    return rows


def rows_over_ease(folders: list[Path], choice: dict[str, float]) -> list[dict[str, Any]]:
    """Gives what the head, as its bundles serve it, gains over EASE for the same users."""
    recipe = Recipe.load(ROOT / CONFIG)
    _, split = prepare_data(recipe.data)
    histories, targets = split.test.histories, list(split.test.targets)
    ease = fit_linear(split.refit_histories(), LinearChoice(**choice), n_items=split.n_items)
    lists, _ = top_k(ease.user_vectors(histories), ease.item_vectors(), k=10, exclude=histories)
    baseline = ndcg_at_k(lists, targets, k=10)
    recommenders = [Recommender.load(folder) for folder in folders]
    rows = []
    for system, diversity in (("ranking_head", 0.0), ("ranking_head_diverse", recipe.ranking.diversity)):
        scores = [
            ndcg_at_k(rec.rank(histories, k=10, diversity=diversity)[0], targets, k=10)
            for rec in recommenders
        ]
        gain = paired_difference(np.mean(scores, axis=0), baseline)
        interval = {"value": gain.mean, "low": gain.low, "high": gain.high, "n": len(folders)}
        rows.append(row(NAME, CASE, f"lora_rec_{system}", "ndcg@10 over ease", [gain.mean]) | interval)
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
    parser.add_argument(
        "--reuse", action="store_true", help="judge the bundles that are there, train nothing"
    )
    arguments = parser.parse_args()
    folders = [arguments.runs / f"seed-{seed}" for seed in arguments.seeds]
    pairs = zip(arguments.seeds, folders, strict=True)
    runs = [run_seed(seed, folder, reuse=arguments.reuse) for seed, folder in pairs]
    command = "python benchmarks/quickstart_quality.py --seeds " + " ".join(map(str, arguments.seeds))
    header = header_of(NAME, command) | {"seeds": arguments.seeds, "chosen": [run["chosen"] for run in runs]}
    write_rows(NAME, header, rows_of(runs) + rows_over_ease(folders, runs[0]["chosen"]["ease"]))


if __name__ == "__main__":
    main()
