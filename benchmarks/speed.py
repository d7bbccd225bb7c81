"""Speed beside peers: training, and encoding a catalogue, with the same backbone, texts, adapters and batch.

    python benchmarks/speed.py --data-root ../shared/data --sentences-python .venv-sentences/bin/python

Systems take turns, step by step, in one process tree, so a machine that is slower for a while is so for all;
what is written are medians, and ratios of medians. Quality is that of runs to the end, on test users.

On a machine with a CUDA device the same is measured there, in bf16, and written to speed_cuda.json, with the
tokens of the pairs that are trained on per second, unpadded, and with the share that a system's operations,
those on padding too, are of what the card does in a large product in bf16. `--device cpu` measures the
processor there.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from quality_sets import RankingSet, prepare_set
from rows import header_of, merge_rows, of_one_run, row, write_rows
from speed_encode import measure_encoding
from speed_train import CASES, MINILM, Steps, System, judge, systems_of, take_turns, write_task

ST, PAD = "sentence_transformers", "pad128"
MAX_TOKENS = 128
"""Of a text, in every system."""


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
    cell = partial(row, arguments.benchmark, case)
    task = write_task(prepared, folder, seed=arguments.seed)
    systems = chosen_of(systems_of(case, task, prepared, arguments), arguments.systems or in_turns(case))
    steps = take_turns(systems, n_rounds=arguments.rounds, logs=folder)
    rates = {name: statistics.median(found.rates) for name, found in steps.items()}
    rows = on_the_card(case, steps, task, arguments) if arguments.device == "cuda" else []
    for name, found in steps.items():
        rows += [
            cell(name, "interactions_per_s", found.rates, value=rates[name], unit="1/s"),
            cell(name, "peak_memory", [found.peak_mb / 1000], unit="GB"),
        ]
        rows += [cell(name, f"s_{stage}", [s], unit="s") for stage, s in found.stages.items()]
        if not name.startswith("lora_rec"):
            continue
        for peer, metric in ((ST, "ratio_to_sentence_transformers"), (PAD, "ratio_to_pad128")):
            if peer in rates:
                rows.append(cell(name, metric, [rates[name] / rates[peer]]))
        if ST in steps:
            rows.append(cell(name, "memory_ratio", [found.peak_mb / steps[ST].peak_mb]))
    return rows


def on_the_card(
    case: str, steps: dict[str, Steps], task: Path, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Gives tokens per second, and the share of the card's peak."""
    cell = partial(row, arguments.benchmark, case)
    per_pair, peak = tokens_per_pair(task), flops_per_second("cuda", 8192)
    rows = []
    for name, found in steps.items():
        tokens = [per_pair * rate for rate in found.rates]
        shares = [found.flops / seconds / peak for seconds in found.seconds]
        rows += [
            cell(name, metric, values, value=statistics.median(values), unit=unit)
            for metric, values, unit in (("tokens_per_s", tokens, "1/s"), ("share_of_peak", shares, ""))
        ]
    return rows


def tokens_per_pair(task: Path) -> float:
    """Gives the mean tokens of a history's text and an item's, over the pairs."""
    from transformers import AutoTokenizer

    from lora_rec.towers.source import resolve_backbone

    tokenizer = AutoTokenizer.from_pretrained(resolve_backbone(MINILM).folder)
    with np.load(task, allow_pickle=True) as arrays:
        lengths = [
            np.array([min(len(ids), MAX_TOKENS) for ids in tokenizer(arrays[name].tolist())["input_ids"]])
            for name in ("user_texts", "item_texts")
        ]
        pairs = arrays["pairs"]
    return float(sum(length[pairs[:, side]].mean() for side, length in enumerate(lengths)))


def flops_per_second(device: str, width: int) -> float:
    """Gives what a device does in products of square matrices in bf16: the median of ten."""
    import torch

    matrix = torch.randn(width, width, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(11):
        began = time.perf_counter()
        _ = float((matrix @ matrix)[0, 0])  # reading a number waits for the device
        seconds.append(time.perf_counter() - began)
    return 2 * width**3 / statistics.median(seconds[1:])


def choose_device(wanted: str | None) -> str:
    """Gives the device to measure, and says what is left out for lack of one."""
    import torch

    if torch.cuda.is_available():
        return wanted or "cuda"
    if wanted == "cuda":
        raise SystemExit("speed: --device cuda, but torch finds no CUDA device here; nothing was measured")
    print("speed: the CUDA part is skipped: torch finds no CUDA device here", flush=True)
    return "cpu"


def measure_quality(
    case: str, prepared: RankingSet, arguments: argparse.Namespace, folder: Path
) -> list[dict[str, Any]]:
    """Gives the rows of one case's runs to the end; padding changes no result, so `pad128` has none."""
    cell = partial(row, arguments.benchmark, case)
    task = write_task(prepared, folder, seed=arguments.seed)
    found: dict[str, dict[str, float]] = {}
    systems = chosen_of(systems_of(case, task, prepared, arguments), arguments.systems)
    for name in [name for name in systems if name != PAD]:
        found[name] = judge(systems[name], prepared, folder / f"{case}-{name}.npz", logs=folder)
        print(f"{case}, {name}: {found[name]}", flush=True)
    rows = [
        cell(name, metric, [value], unit="s" if metric == "s_training" else "")
        for name, numbers in found.items()
        for metric, value in numbers.items()
    ]
    if ST in found:
        rows += [
            cell(name, "ndcg_ratio", [numbers["ndcg@10"] / found[ST]["ndcg@10"]])
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
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="the CUDA device where there is one (default), or the CPU"
    )
    parser.add_argument("--n-texts", type=int, default=4000, help="titles to encode")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for logs and pieces; a temporary one otherwise")
    arguments = parser.parse_args()
    arguments.device = choose_device(arguments.device)
    arguments.benchmark = "speed" if arguments.device == "cpu" else "speed_cuda"
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
    name = arguments.benchmark
    write_rows(name, header_of(name, command), merge_rows(name, of_one_run(rows)))


if __name__ == "__main__":
    main()
