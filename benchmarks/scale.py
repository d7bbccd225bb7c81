"""From 10 thousand to a million items on one machine: does an item cost the same, and does memory stay flat?

    python benchmarks/scale.py --sizes 10k 100k 1m

Made-up items, and 100 interactions for each (`scale_data.py`), go through what the library does with tables
of any size. Every stage runs in a process of its own, on one core: `generate` writes the tables, `store`
sorts them (`lora-rec store`), `tokenise` writes token ids, `encode` runs the item tower, `index` makes the
index for approximate search, `recommend` and `recommend_exact` write the lists of a sample of users, with the
index and without. The tower is a tiny random BERT and users are the mean of their last items' vectors: what
is measured is all around the models.

Times are seconds of the processor, because others may use the machine, after a warm-up on a hundred items;
`wall_s` is the whole process by the clock. `own_mb` is the peak of memory that is the process's own, and
`rss_mb` that of all: it also counts pages of memory-mapped files, which the system takes back when it needs
them. Both have what importing the libraries takes.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rows import header_of, merge_rows, row, write_rows
from scale_data import PER_ITEM, make_words, popularity, write_interactions, write_items

NAME, GENERATE = "scale", "generate"
SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}
SEEDS = (0, 1, 2)
"""Of the interactions; a million items have the first alone."""
WIDTH, N_USERS, K, LAST = 32, 2_000, 10, 20
MEMORY_MB = 512
UNITS = {"own_mb": "MB", "rss_mb": "MB", "wall_s": "s"}
Found = dict[str, float]


def generate(folder: Path, n_items: int, *, seed: int) -> Found:
    """Writes the two tables."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        write_items(100, Path(scratch) / "items.parquet")
        write_interactions(100, Path(scratch) / "clicks")
    began = time.process_time()
    write_items(n_items, folder / "items.parquet")
    items = time.process_time()
    n = write_interactions(n_items, folder / "clicks", seed=seed)
    return {"us_per_item": 1e6 * (items - began) / n_items, "us_per_interaction": 1e6 * _since(items) / n}


def store(folder: Path, n_items: int) -> Found:
    """Sorts them into histories and texts on disk."""
    import warnings

    from lora_rec.data.store import store_dataset

    warnings.simplefilter("ignore", UserWarning)  # of repeats, which random rows have
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        few = Path(scratch)
        write_items(100, few / "items.parquet")
        write_interactions(100, few / "clicks")
        store_dataset(few / "clicks", few / "items.parquet", few / "stored")
    began = time.process_time()
    stored = store_dataset(
        folder / "clicks", folder / "items.parquet", folder / "stored", memory_mb=MEMORY_MB
    )
    seconds = _since(began)
    return {"us_per_interaction": 1e6 * seconds / stored.n_interactions}


def tokenise(folder: Path, n_items: int) -> Found:
    """Writes the token ids of all titles."""
    from lora_rec.text.token_file import open_tokens

    texts, tokenizer = _texts(folder), _tokenizer()
    shutil.rmtree(folder / "tokens", ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        open_tokens(tokenizer, texts[:100], max_tokens=32, fingerprint="scale", root=Path(scratch))
    began = time.process_time()
    open_tokens(tokenizer, texts, max_tokens=32, fingerprint="scale", root=folder)
    return {"us_per_item": 1e6 * _since(began) / n_items}


def encode(folder: Path, n_items: int) -> Found:
    """Runs the item tower over them, into a file of vectors."""
    import torch

    from lora_rec.export.catalog_vectors import write_vectors
    from lora_rec.text.token_file import open_tokens
    from lora_rec.towers.two_tower import encode

    torch.set_num_threads(1)
    tower = _tower(folder)
    tokens = open_tokens(_tokenizer(), _texts(folder), max_tokens=32, fingerprint="scale", root=folder)
    encode(tower, tokens, np.arange(64), token_budget=4096)  # what the first call alone does

    def encode_block(start: int, stop: int) -> NDArray[np.float32]:
        return encode(tower, tokens, np.arange(start, stop), token_budget=4096)

    began = time.process_time()
    write_vectors(
        folder / "vectors.npy", encode_block, n_items=n_items, width=WIDTH, made_of={"size": str(n_items)}
    )
    return {"us_per_item": 1e6 * _since(began) / n_items}


def index(folder: Path, n_items: int) -> Found:
    """Makes the index, by which 98 of the 100 nearest are to be found."""
    from lora_rec.rank.index_build import build_index

    vectors = _vectors(folder)
    began = time.process_time()
    about = build_index(folder / "index", vectors)
    return {"us_per_item": 1e6 * _since(began) / n_items, "recall": about.recall}


def recommend(folder: Path, n_items: int) -> Found:
    """Writes the lists of some users, found by the index."""
    from lora_rec.rank.index import open_index

    return _recommend(folder, n_items, open_index(folder / "index", _vectors(folder)))


def recommend_exact(folder: Path, n_items: int) -> Found:
    """Writes the lists of some users, found by reading all vectors."""
    return _recommend(folder, n_items, None)


STAGES: dict[str, Callable[[Path, int], Found]] = {
    stage.__name__: stage for stage in (generate, store, tokenise, encode, index, recommend, recommend_exact)
}


@dataclass(frozen=True, eq=False)
class NearestItems:
    """Lists by the mean of the last items' vectors: a linear model of low rank over memory-mapped vectors."""

    item_ids: Any
    titles: Any
    vectors: NDArray[np.float32]
    index: Any
    fingerprint = "nearest"

    def find_items(self, item_ids: Any, *, where: str) -> NDArray[np.int64]:
        """Gives numbers of ids; histories of a stored data set have numbers already."""
        raise NotImplementedError

    @cached_property
    def rank(self) -> Callable[..., tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Gives what `all_users.Ranks` wants."""
        from lora_rec.rank.search import top_k

        def rank(histories: Any, *, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            users = np.stack([self.vectors[history[-LAST:]].mean(axis=0) for history in histories])
            if self.index is not None:
                return self.index.search(users, k=k, exclude=histories)
            return top_k(users, self.vectors, k=k, exclude=histories)

        return rank


def _recommend(folder: Path, n_items: int, found_by: Any) -> Found:
    from lora_rec.data.lists import Lists
    from lora_rec.data.stored import Texts, open_stored
    from lora_rec.export.all_users import recommend_all

    stored = open_stored(folder / "stored")
    n_users = min(N_USERS, stored.n_users)
    offsets = np.asarray(stored.histories.offsets[: n_users + 1])
    some = replace(
        stored,
        user_ids=Texts(stored.user_ids.column.slice(0, n_users)),
        histories=Lists(stored.histories.values[: offsets[-1]], offsets),
    )
    ranks = NearestItems(stored.item_ids, stored.item_fields["title"], _vectors(folder), found_by)
    shutil.rmtree(folder / "lists", ignore_errors=True)
    began = time.process_time()
    done = recommend_all(ranks, some, folder / "lists", k=K, users_at_once=500)
    seconds = _since(began)
    found = {"ms_per_user": 1e3 * seconds / done.n_users}
    return found | ({} if found_by else {"ns_per_user_and_item": 1e9 * seconds / done.n_users / n_items})


def _since(began: float) -> float:
    return time.process_time() - began


def _texts(folder: Path) -> Any:
    from lora_rec.data.stored import open_stored

    return open_stored(folder / "stored").item_fields["title"]


def _vectors(folder: Path) -> NDArray[np.float32]:
    return np.load(folder / "vectors.npy", mmap_mode="r")


def _tokenizer() -> Any:
    """One token a word, with the marks that a BERT wants."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {token: place for place, token in enumerate([*special, *make_words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _tower(folder: Path) -> Any:
    """A random BERT of 3 layers and width 32, with LoRA on the last."""
    import torch
    from transformers import BertConfig, BertModel

    from lora_rec.pipeline.towers import build_tower
    from lora_rec.recipe import TowerSection

    torch.manual_seed(0)
    tokenizer = _tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    model = BertModel(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:  # of default size, weights this narrow give all texts one vector
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    section = TowerSection(backbone=str(folder / "bert"), trained_layers=1)
    return build_tower(section, width=WIDTH, where="item_tower", device="cpu")


def run_stage(stage: str, folder: Path, size: str, *, seed: int) -> Found:
    """Runs one stage in a process of its own, and looks at its memory every 10 ms."""
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder), "--sizes", size]
    command += ["--seed", str(seed)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    own, began = 0, time.perf_counter()
    while child.poll() is None:
        own = max(own, _memory("RssAnon", Path(f"/proc/{child.pid}/status")))
        time.sleep(0.01)
    output = child.communicate()[0]
    if child.returncode:
        raise SystemExit(f"{stage} at {size} ended with an error")
    return json.loads(output.splitlines()[-1]) | {"own_mb": own / 1e3, "wall_s": time.perf_counter() - began}


def _memory(name: str, status: Path) -> int:
    """Gives kB as Linux counts them, 0 where the process has ended."""
    try:
        found = re.search(rf"{name}:\s+(\d+)", status.read_text(encoding="utf-8"))
    except OSError:
        return 0
    return int(found.group(1)) if found else 0


def measure(size: str, root: Path) -> list[dict[str, Any]]:
    """Gives the rows of one size; what is on disk for it is removed again."""
    runs: dict[str, list[Found]] = {stage: [] for stage in (GENERATE, *STAGES)}
    for seed in SEEDS if SIZES[size] < 1_000_000 else SEEDS[:1]:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            for stage in runs:
                runs[stage].append(run_stage(stage, Path(folder), size, seed=seed))
                print(f"{size} {stage}: {runs[stage][-1]}", flush=True)
    rows = []
    for stage, found in runs.items():
        for metric in found[0]:
            values = [run[metric] for run in found]
            unit = (
                metric.split("_")[0]
                if "_per_" in metric
                else {"mb": "MB", "s": "s"}.get(metric[-2:].strip("_"), "")
            )
            middle = float(np.median(values))
            rows.append(row(NAME, size, stage, metric, values, value=middle, unit=unit))
    n = SIZES[size]
    for share, value in popularity(n, min(n * PER_ITEM, 10_000_000)).items():
        rows.append(row(NAME, size, "generate", f"share_of_{share}", [value]))
    return rows


def main() -> None:
    """Parses the command line and writes benchmarks/results/scale.json, size by size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="12 GB for a million items")
    parser.add_argument(
        "--stage", choices=(GENERATE, *STAGES), help="run this alone and print what was measured"
    )
    parser.add_argument("--seed", type=int, default=0, help="with --stage generate")
    arguments = parser.parse_args()
    if arguments.stage:
        folder, n_items = Path(arguments.folder), SIZES[arguments.sizes[0]]
        if arguments.stage == GENERATE:
            found = generate(folder, n_items, seed=arguments.seed)
        else:
            found = STAGES[arguments.stage](folder, n_items)
        # Not ru_maxrss, which begins with that of the process that started this one.
        peak = _memory("VmHWM", Path("/proc/self/status"))
        print(json.dumps(found | {"rss_mb": peak / 1e3}))
        return
    for size in arguments.sizes:
        rows = measure(size, Path(arguments.folder))
        header = header_of(NAME, "python benchmarks/scale.py") | {"seeds": list(SEEDS)}
        write_rows(NAME, header, merge_rows(NAME, rows))


if __name__ == "__main__":
    main()
