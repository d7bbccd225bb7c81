"""What each task of phase two adds to the towers, and what keeps them from overfitting: results/tasks.json.

`base` is the default: alignment and softmax. Every other case is the same run with one thing more, seed by
seed; `after ...` begins with adapters that learned without labels (phase_one.py), from the texts and
histories of training alone. `gain` is its `ndcg@10` (of the towers' own lists over the catalogue; of shown
lists on MIND) over that of `base`, less one. `auc` is that of likes against dislikes (of a purchase against a
random item on Online Retail, of clicks within lists on MIND). The real backbones, adapters on the last layer,
few examples a user: a run takes one to four minutes of one core, in a process of its own. Runs are kept in
`--runs`, and the rows of cases that a call leaves out stay, so that the table can be made in pieces.

python benchmarks/tasks.py --data-root ../shared/data --cases "movielens-100k bpr" --seeds 0
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from phase_one import MERGED, learn_phase_one, merge_phase_one
from rows import RESULTS, header_of, row, write_rows
from task_cases import CASES, first_of, parts_of, recipe_of, write_retail

from lora_rec.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)
OF_BASE = "base"
Runs = dict[str, dict[str, dict[str, Any]]]
"""By case and seed: numbers, and under `OF_BASE` those of the run that a case is compared with."""
METRICS = ("ndcg@10", "auc", "calibration_error", "seconds", "phase one seconds")


def run_ranked(recipe: Recipe) -> dict[str, float]:
    """Trains on who took what; judges lists over the catalogue, and likes."""
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from lora_rec.metrics import ndcg_at_k
    from lora_rec.pipeline.data import prepare_data, prepare_texts
    from lora_rec.pipeline.objectives import prepare_material
    from lora_rec.pipeline.ranking import LinearChoice, fit_linear
    from lora_rec.pipeline.sources import open_sources
    from lora_rec.pipeline.towers import (
        Vectors,
        build_towers,
        measure_interest,
        solve_and_encode,
        teach,
        train_towers,
    )
    from lora_rec.rank.search import top_k

    accelerator = Accelerator()
    set_seed(recipe.train.seed)
    dataset, split = prepare_data(recipe.data)
    examples, texts = prepare_texts(recipe, dataset, split)
    known = split.train_histories()
    linear = fit_linear(known, LinearChoice(200.0, 0.9, validation=0.0), n_items=split.n_items)
    teacher = teach(recipe, linear, examples)
    material = prepare_material(recipe, dataset, examples, texts, teacher, known=known, log=split.train_log)
    model = build_towers(recipe, device=accelerator.device)
    sources = open_sources(recipe, model, texts, accelerator)
    frozen = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)
    began = time.perf_counter()
    result = train_towers(recipe, model, sources, texts, material, dataset, split, frozen, accelerator)
    seconds = time.perf_counter() - began
    vectors = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)

    def score(found: Vectors) -> float:
        lists, _ = top_k(found.users[texts.test_texts], found.items, k=10, exclude=split.test.histories)
        return float(ndcg_at_k(lists, list(split.test.targets), k=10).mean())

    likes = measure_interest(recipe, model, dataset, split, texts, vectors)
    return {
        "ndcg@10": score(vectors),
        "frozen": score(frozen),
        "validation": result.best_validation,
        "best_epoch": float(result.best_epoch),
        "auc": likes["auc"],
        "calibration_error": likes["calibration_error"],
        "seconds": seconds,
    }


def run_shown(recipe: Recipe) -> dict[str, float]:
    """Trains on who read what and on lists that were shown; judges the scorer's order of test lists."""
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from lora_rec.pipeline import shown
    from lora_rec.pipeline.sources import open_sources
    from lora_rec.pipeline.towers import build_towers, solve_and_encode
    from lora_rec.train.text_match import train_text_match

    accelerator = Accelerator()
    set_seed(recipe.train.seed)
    data = shown.prepare_shown(recipe)
    teacher = shown.teach_shown(recipe, data)
    material = shown.prepare_shown_material(recipe, data, teacher)
    model = build_towers(recipe, device=accelerator.device)
    sources = open_sources(recipe, model, data.texts, accelerator)
    vectors = solve_and_encode(recipe, model, sources, data.texts, teacher, accelerator)
    frozen = shown.read_item_texts(recipe, model, sources, accelerator)
    began = time.perf_counter()
    result = shown.train_on_histories(recipe, model, sources, data, material, vectors, frozen, accelerator)
    seconds = time.perf_counter() - began
    test = data.split.test

    def judge(texts: Any) -> dict[str, float]:
        scorer = train_text_match(texts, data.histories, seed=recipe.train.seed)
        return shown.judge_shown(scorer.scores(test.histories, test.candidates), test)

    found = judge(shown.read_item_texts(recipe, model, sources, accelerator))
    return found | {
        "frozen": judge(frozen)["ndcg@10"],
        "validation": result.best_validation,
        "best_epoch": float(result.best_epoch),
        "seconds": seconds,
    }


def file_of(case: str, seed: int, data_root: Path, folder: Path) -> Path:
    """Gives where a run's numbers are kept: its settings are in the name, so that others are never read."""
    settings = recipe_of(case, seed, data_root, folder).to_yaml().replace(str(folder), "")
    settings = settings.replace(str(data_root), "")
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    return folder / f"{case.replace(' ', '_').replace(',', '')}-{seed}-{digest}.json"


def run_apart(case: str, seed: int, data_root: Path, folder: Path) -> dict[str, float]:
    """Runs one case in a process of its own, or reads what an earlier call left."""
    done = file_of(case, seed, data_root, folder)
    if not done.exists():
        command = [
            sys.executable,
            __file__,
            "--one",
            case,
            "--seeds",
            str(seed),
            "--data-root",
            str(data_root),
        ]
        places = ["--data-root", str(data_root), "--runs", str(folder)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        with open(done.with_suffix(".log"), "w") as log:
            subprocess.run([*command, *places], check=True, env=environment, stderr=log)
    found: dict[str, float] = json.loads(done.read_text(encoding="utf-8"))
    return found


def merge(found: Runs) -> Runs:
    """Adds these runs, by case and seed, to those in results/tasks.json; new ones replace old ones."""
    file = RESULTS / "tasks.json"
    runs = json.loads(file.read_text(encoding="utf-8"))[0]["runs"] if file.exists() else {}
    for case, seeds in found.items():
        runs[case] = runs.get(case, {}) | seeds
    return {case: runs[case] for case in CASES if case in runs}


def rows_of(case: str, runs: Runs) -> list[dict[str, Any]]:
    """Gives the rows of one case over all seeds, or over the first alone where one is missing."""
    base = f"{parts_of(case)[0]} base"
    seeds = [str(s) for s in SEEDS if str(s) in runs[case] and str(s) in runs.get(base, {})]
    seeds = seeds if len(seeds) == len(SEEDS) else seeds[:1]
    if not seeds:
        return []
    values = {m: [runs[case][s][m] for s in seeds] for m in METRICS if m in runs[case][seeds[0]]}
    # The base that the same call ran: another one may have been run since, on another machine or version.
    bases = {s: runs[case][s].get(OF_BASE, runs[base][s]) for s in seeds}
    values["gain"] = [runs[case][s]["ndcg@10"] / bases[s]["ndcg@10"] - 1 for s in seeds]
    if "auc" in values:
        values["auc gain"] = [runs[case][s]["auc"] - bases[s]["auc"] for s in seeds]
    return [
        row("tasks", case, "lora_rec", metric, found, unit="s" if metric == "seconds" else "")
        for metric, found in values.items()
    ]


def main() -> None:
    """Runs what was asked for, and writes all that is known."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True, help="holds movielens-100k/ and others")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, metavar="CASE")
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    parser.add_argument("--runs", type=Path, default=Path("runs/tasks"), help="where runs are kept")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    data_root, folder = arguments.data_root, arguments.runs
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        import torch

        torch.set_num_threads(1)
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        run = (arguments.one, arguments.seeds[0], data_root, folder)
        seconds = [learn_phase_one(first) for first in first_of(*run).values()]
        if parts_of(arguments.one)[1] in MERGED:
            for first in first_of(*run).values():
                merge_phase_one(first)
        recipe = recipe_of(*run)
        numbers = run_shown(recipe) if arguments.one.startswith("mind ") else run_ranked(recipe)
        if seconds:
            numbers["phase one seconds"] = sum(seconds)
        done = file_of(*run)
        scratch = done.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(numbers), encoding="utf-8")
        os.replace(scratch, done)
        return
    if not (folder / "retail.csv").exists():
        write_retail(data_root, folder)
    bases = {f"{parts_of(case)[0]} base" for case in arguments.cases}
    cases = [case for case in CASES if case in bases or case in arguments.cases]
    found: Runs = {}
    for seed in arguments.seeds:
        for case in cases:
            numbers = run_apart(case, seed, data_root, folder)
            base = found.get(f"{parts_of(case)[0]} base", {}).get(str(seed))
            kept = {} if base is None else {OF_BASE: {name: base[name] for name in ("ndcg@10", "auc")}}
            found.setdefault(case, {})[str(seed)] = numbers | kept
            said = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items())
            print(f"{case}, seed {seed}: {said}", flush=True)
            runs = merge(found)
            header = header_of("tasks", "python benchmarks/tasks.py --data-root DATA")
            rows = [r for known in runs for r in rows_of(known, runs)]
            write_rows("tasks", header | {"seeds": list(SEEDS), "runs": runs}, rows)


if __name__ == "__main__":
    main()
