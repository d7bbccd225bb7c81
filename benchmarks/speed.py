"""Speed beside peers: training, and encoding a catalogue, with the same backbone, texts, adapters and batch.

    python benchmarks/speed.py --data-root ../shared/data --sentences-python .venv-sentences/bin/python

Systems take turns, step by step, in one process tree, so a machine that is slower for a while is so for all;
what is written are medians, and ratios of medians. Quality is that of runs to the end, on test users.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from quality_sets import RankingSet, prepare_set
from rows import header_of, merge_rows, of_one_run, row, write_rows
from speed_encode import measure_encoding
from speed_train import CASES, System, judge, systems_of, take_turns, write_task

BENCHMARK = "speed"
ST, PAD = "sentence_transformers", "pad128"


def chosen_of(systems: dict[str, System], names: list[str] | None) -> dict[str, System]:
    """Gives some systems by name, or all."""
    return {name: system for name, system in systems.items() if names is None or name in names}


def in_turns(case: str) -> list[str]:
    """Gives who takes turns when nobody is named: all at once would need more than 23 GB."""
    one_target = ["lora_rec, 1 target"] if case == "train-minilm" else []
    return ["lora_rec", "lora_rec, last layer", *one_target, ST, PAD]


def measure_training(
    case: str, prepared: RankingSet, arguments: argparse.Namespace, folder: Path
) -> list[dict[str, Any]]:
    """Gives the rows of one training case."""
    task = write_task(prepared, folder, seed=arguments.seed)
    systems = chosen_of(systems_of(case, task, prepared, arguments), arguments.systems or in_turns(case))
    steps = take_turns(systems, n_rounds=arguments.rounds, logs=folder)
    rates = {name: statistics.median(found.rates) for name, found in steps.items()}
    rows = []
    for name, found in steps.items():
        rows += [
            row(BENCHMARK, case, name, "interactions_per_s", found.rates, value=rates[name], unit="1/s"),
            row(BENCHMARK, case, name, "peak_memory", [found.peak_mb / 1000], unit="GB"),
        ]
        rows += [row(BENCHMARK, case, name, f"s_{stage}", [s], unit="s") for stage, s in found.stages.items()]
        if not name.startswith("lora_rec"):
            continue
        for peer, metric in ((ST, "ratio_to_sentence_transformers"), (PAD, "ratio_to_pad128")):
            if peer in rates:
                rows.append(row(BENCHMARK, case, name, metric, [rates[name] / rates[peer]]))
        if ST in steps:
            rows.append(row(BENCHMARK, case, name, "memory_ratio", [found.peak_mb / steps[ST].peak_mb]))
    return rows


def measure_quality(
    case: str, prepared: RankingSet, arguments: argparse.Namespace, folder: Path
) -> list[dict[str, Any]]:
    """Gives the rows of one case's runs to the end; padding changes no result, so `pad128` has none."""
    task = write_task(prepared, folder, seed=arguments.seed)
    found: dict[str, dict[str, float]] = {}
    systems = chosen_of(systems_of(case, task, prepared, arguments), arguments.systems)
    for name in [name for name in systems if name != PAD]:
        found[name] = judge(systems[name], prepared, folder / f"{case}-{name}.npz", logs=folder)
        print(f"{case}, {name}: {found[name]}", flush=True)
    rows = [
        row(BENCHMARK, case, name, metric, [value], unit="s" if metric == "s_training" else "")
        for name, numbers in found.items()
        for metric, value in numbers.items()
    ]
    if ST in found:
        rows += [
            row(BENCHMARK, case, name, "ndcg_ratio", [numbers["ndcg@10"] / found[ST]["ndcg@10"]])
            for name, numbers in found.items()
            if name != ST
        ]
    return rows


def main() -> None:
    """Parses the command line, measures, and writes benchmarks/results/speed.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-root", type=Path, required=True, help="folder with movielens-100k and amazon-beauty-2014"
    )
    parser.add_argument(
        "--sentences-python", type=Path, help="interpreter of the peers; without it they are left out"
    )
    parser.add_argument("--cases", nargs="+", choices=(*CASES, "encode"), default=[*CASES, "encode"])
    parser.add_argument("--parts", nargs="+", choices=("turns", "quality"), default=["turns", "quality"])
    parser.add_argument("--systems", nargs="+", help="that take part; the others' rows stay as they are")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each system that count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--n-texts", type=int, default=4000, help="titles to encode")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for logs and pieces; a temporary one otherwise")
    arguments = parser.parse_args()
    folder = arguments.work or Path(tempfile.mkdtemp(prefix="speed-"))
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for case in arguments.cases:
        if case == "encode":
            rows += measure_encoding(arguments, folder)
            continue
        prepared = prepare_set("movielens-100k", arguments.data_root, folder)
        assert isinstance(prepared, RankingSet)
        if "turns" in arguments.parts:
            rows += measure_training(case, prepared, arguments, folder)
        if "quality" in arguments.parts:
            rows += measure_quality(case, prepared, arguments, folder)
    command = "python benchmarks/speed.py --data-root ../shared/data --sentences-python PYTHON"
    write_rows(BENCHMARK, header_of(BENCHMARK, command), merge_rows(BENCHMARK, of_one_run(rows)))


if __name__ == "__main__":
    main()
