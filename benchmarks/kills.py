"""Kills runs with signal 9 at random moments; every one has to go on and to end with the same bits.

    python benchmarks/kills.py

Tiny towers with random weights train for a few seconds with a checkpoint after each step. Every other kill
waits for the next checkpoint and comes in the middle of writing it. Each attempt is a process of its own,
forked after the imports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread, because a forked process cannot use the threads of its parent, and because sums depend on them.
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from rows import header_of, row, write_rows

ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"lora_dropout": 0.1},
    "adalora": {"adapter": "adalora", "init_rank": 6, "target_rank": 3},
    "lora-4bit": {"precision": "4bit"},
}
EPOCHS, BATCH = 4, 16
N_WORDS, N_USERS = 40, 60


@dataclass
class Outcome:
    """What became of the kills of one adapter."""

    kills: int = 0
    in_saves: int = 0
    """Of them, how many left a checkpoint half-written."""
    resumed: int = 0
    """Of the attempts after a kill, how many went on from a checkpoint."""
    runs: int = 0
    """That came to their end after one or more kills."""
    equal: int = 0
    """Of these, how many ended with the bits of the run that nobody killed."""


def write_inputs(folder: Path) -> None:
    """Writes a tiny BERT, a tiny Llama, and two tables."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    words = [f"{kind}{n}" for kind in ("war", "love") for n in range(N_WORDS // 2)]
    vocabulary = {word: i for i, word in enumerate(("<unk>", "<eos>", ";", "war", "love", *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for kind in ("bert", "llama"):
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            kind,
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
            pad_token_id=0,
        )
        AutoModel.from_config(config).save_pretrained(folder / kind)
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>")
        fast.save_pretrained(folder / kind)
    draw = random.Random(0)
    clicks = ["user_id,item_id,timestamp"]
    for user in range(N_USERS):
        half = range(N_WORDS // 2)
        taken = [item + (user % 2) * N_WORDS // 2 for item in draw.sample(half, 9)]
        clicks += [f"u{user},i{item},{place}" for place, item in enumerate(taken)]
    items = ["item_id,title", *(f"i{n},{word.rstrip('0123456789')} {word}" for n, word in enumerate(words))]
    (folder / "clicks.csv").write_text("\n".join(clicks) + "\n")
    (folder / "items.csv").write_text("\n".join(items) + "\n")


def run(inputs: Path, output: Path, adapter: str) -> None:
    """Trains as the recipe does, and leaves the hash of what was learned beside the output."""
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from lora_rec.config import build_config
    from lora_rec.pipeline.checkpoints import open_checkpoints
    from lora_rec.pipeline.data import prepare_data, prepare_texts
    from lora_rec.pipeline.objectives import prepare_material
    from lora_rec.pipeline.ranking import choose_linear, fit_linear
    from lora_rec.pipeline.sources import open_sources
    from lora_rec.pipeline.towers import Vectors, build_towers, solve_and_encode, teach, train_adapters
    from lora_rec.recipe import Recipe

    settings = {"trained_layers": 2} | ADAPTERS[adapter]
    tree = {
        "output": str(output),
        "data": {"interactions": str(inputs / "clicks.csv"), "items": str(inputs / "items.csv")},
        "user_tower": {"backbone": str(inputs / "bert"), "pooling": "mean"} | settings,
        "item_tower": {"backbone": str(inputs / "llama"), "pooling": "last"} | settings,
        "train": {"width": 8, "epochs": EPOCHS, "patience": EPOCHS, "batch_size": BATCH, "extra_items": 8},
        "checkpoint": {"every_seconds": 0},
    }
    recipe = build_config(Recipe, tree)
    accelerator = Accelerator(cpu=True)
    set_seed(0)
    dataset, split = prepare_data(recipe.data)
    examples, texts = prepare_texts(recipe, dataset, split)
    known = split.train_histories()
    linear = fit_linear(known, choose_linear(split), n_items=split.n_items)
    teacher = teach(recipe, linear, examples)
    model = build_towers(recipe, device=accelerator.device)
    start = {name: p.detach().clone() for name, p in model.trained_parameters().items()}
    sources = open_sources(recipe, model, texts, accelerator)
    frozen = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)

    def moved(_: Vectors) -> float:
        # How far the adapters have come, so that the last epoch is kept and not the start.
        with torch.no_grad():
            ways = [(p - start[name]).abs().sum() for name, p in model.trained_parameters().items()]
            return 1 + float(sum(ways))

    material = prepare_material(recipe, dataset, examples, texts, teacher, known=known, log=split.train_log)
    checkpoints = open_checkpoints(recipe, model, texts, material, accelerator, judged=[])
    train_adapters(
        recipe,
        model,
        sources,
        texts,
        material,
        accelerator,
        start=frozen,
        start_validation=0.0,
        validate=moved,
        checkpoints=checkpoints,
    )
    digest = hashlib.sha256()
    for name, tensor in sorted(model.learned_state().items()):
        digest.update(name.encode() + tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    scratch = output.with_suffix(".part")
    scratch.write_text(digest.hexdigest())
    checkpoints.remove()
    os.replace(scratch, output.with_suffix(".sha256"))


def attempt(
    work: Callable[[], None], *, kill_after: float | None, log: Path, in_save: Path | None = None
) -> bool:
    """Runs in a process of its own, which may be killed; says whether it came to its end.

    Args:
        work: what it does.
        kill_after: seconds until it is killed; None lets it live.
        log: where its output goes.
        in_save: a folder of checkpoints: after that time the kill waits until one is being written there.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            work()
            status = 0
        except BaseException as error:  # noqa: BLE001 - the parent reads it in the log
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)
    if kill_after is not None:
        end = time.monotonic() + kill_after
        while time.monotonic() < end or (in_save is not None and not any(in_save.glob(".writing-*"))):
            if os.waitpid(child, os.WNOHANG)[0]:
                return True
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"kills: a run ended with an error; see {log}")
    return os.WIFEXITED(status)


def kill_runs(adapter: str, folder: Path, *, n_kills: int, seed: int, progress: bool = False) -> Outcome:
    """Kills a run again and again, lets it come to its end, and begins another until all kills are used.

    Args:
        adapter: one of `ADAPTERS`.
        folder: empty, for inputs, checkpoints and logs.
        n_kills: in all.
        seed: of the moments.
        progress: prints a line for each run that ended.

    Raises:
        SystemExit: a run ended with an error.
    """
    os.environ["LORA_REC_CACHE"] = str(folder / "cache")
    torch.set_num_threads(1)
    write_inputs(folder)
    log = folder / "log.txt"
    attempt(lambda: run(folder, folder / "whole", adapter), kill_after=None, log=log)
    began = time.monotonic()
    attempt(lambda: run(folder, folder / "again", adapter), kill_after=None, log=log)
    seconds = time.monotonic() - began
    bits = (folder / "whole.sha256").read_text()
    if (folder / "again.sha256").read_text() != bits:
        raise SystemExit("kills: two runs that nobody killed differ, so nothing can be compared")
    draw, outcome = random.Random(seed), Outcome()
    while outcome.kills < n_kills:
        output = folder / f"run-{outcome.runs}"
        kept = folder / f"{output.name}.checkpoints"
        killed = 0
        while True:
            outcome.resumed += killed > 0 and any(kept.glob("step-*"))
            moment = draw.uniform(0, seconds) if outcome.kills < n_kills else None
            in_save = kept if outcome.kills % 2 else None
            if attempt(
                lambda output=output: run(folder, output, adapter),  # type: ignore[misc]
                kill_after=moment,
                log=log,
                in_save=in_save,
            ):
                break
            outcome.kills, killed = outcome.kills + 1, killed + 1
            outcome.in_saves += any(kept.glob(".writing-*"))
        if killed:
            outcome.runs += 1
            outcome.equal += output.with_suffix(".sha256").read_text() == bits
            if progress:
                print(f"{adapter}: {json.dumps(outcome.__dict__)}", flush=True)
        else:
            output.with_suffix(".sha256").unlink()
    return outcome


def main() -> None:
    """Parses the command line, kills, and writes benchmarks/results/kills.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="of each adapter")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = []
    for adapter in ADAPTERS:
        with tempfile.TemporaryDirectory() as folder:
            found = kill_runs(
                adapter, Path(folder), n_kills=arguments.kills, seed=arguments.seed, progress=True
            )
        rows += [row("kills", adapter, "lora_rec", name, [value]) for name, value in found.__dict__.items()]
    write_rows("kills", header_of("kills", f"python benchmarks/kills.py --kills {arguments.kills}"), rows)
    ends = {name: sum(r["value"] for r in rows if r["metric"] == name) for name in ("runs", "equal")}
    if ends["runs"] != ends["equal"]:
        raise SystemExit("kills: not every run ended with the same bits")


if __name__ == "__main__":
    main()
