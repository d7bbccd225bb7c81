"""The encoding part of speed.py: the titles of Amazon Beauty, one pass of each system in turn."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rows import row
from speed_train import HERE, MINILM, System, environment_of, take_turns

sys.path.insert(0, str(HERE / "peers"))
from stepwise import Turns

PEERS = ("sentence_transformers", "onnx_int8")
OURS = {
    "lora_rec": (2, False, "fp32"),
    "lora_rec, auto": (2, False, "auto"),
    "lora_rec, cached": (2, True, "fp32"),
    "lora_rec, cached, last layer": (1, True, "fp32"),
}
"""Trained layers, whether the frozen layers' states are read from the cache, and the precision: `auto` is
bf16 where the processor multiplies it. The adapter is none, so that the vectors can be compared with the
peers', which compute in fp32 as they come."""
SEED = 0


def measure_encoding(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Gives the rows of the case `encode`: texts a second, ratios, and how near the vectors are."""
    cell = partial(row, arguments.benchmark, "encode")
    titles = folder / "titles.json"
    titles.write_text(json.dumps(_titles(arguments.data_root, arguments.n_texts)), encoding="utf-8")
    threads, device = environment_of(arguments), ("--device", arguments.device)
    settings = threads | {"LORA_REC_CACHE": str(folder / "cache")}
    command = (sys.executable, str(HERE / "speed_encode.py"))
    systems = {
        name: System(((*command, name, str(titles), str(folder / f"{name}.npy"), *device),), settings)
        for name in OURS
    }
    if arguments.sentences_python is not None:
        from lora_rec.towers.source import resolve_backbone

        script, backbone = HERE / "peers" / "encode_peer.py", resolve_backbone(MINILM).folder
        interpreter = str(arguments.sentences_python.absolute())
        for name in PEERS if arguments.device == "cpu" else PEERS[:1]:
            files = (str(titles), str(folder / f"{name}.npy"), str(backbone))
            systems[name] = System(((interpreter, str(script), name, *files, *device),), threads)
    found = take_turns(systems, n_rounds=arguments.rounds, logs=folder)
    vectors = {name: np.load(folder / f"{name}.npy") for name in found}
    rows = []
    for name, steps in found.items():
        rows.append(cell(name, "texts_per_s", steps.rates, unit="1/s"))
        rows.append(cell(name, "peak_memory", [steps.peak_mb / 1000], unit="GB"))
        if PEERS[0] not in found:
            continue
        pairs = zip(steps.rates, found[PEERS[0]].rates, strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        median = statistics.median(ratios)
        rows.append(cell(name, "ratio_to_sentence_transformers", ratios, value=median))
        cosines = (vectors[name] * vectors[PEERS[0]]).sum(axis=1)
        rows.append(cell(name, "lowest_cosine", [float(cosines.min())]))
    return rows


def _titles(data_root: Path, n: int) -> list[str]:
    from quality_sets import FOLDERS

    from lora_rec.data.publishers import load_published

    publisher, folder = FOLDERS["amazon-beauty"]
    titles = load_published(publisher, data_root / folder).dataset.item_fields["title"]
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(titles))[:n])
    return [titles[i] for i in chosen]


def main() -> None:
    """Encodes again and again, in turns; the vectors of the first pass are written."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("system", choices=tuple(OURS))
    parser.add_argument("titles", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    turns = Turns(cuda=arguments.device == "cuda")
    import torch

    from lora_rec.cache import cache_folder
    from lora_rec.pipeline.towers import build_tower
    from lora_rec.recipe import TowerSection
    from lora_rec.text.collate import BatchSource, tokenize
    from lora_rec.towers.two_tower import encode_states
    from lora_rec.train.prefix_cache import open_prefix_cache

    layers, cached, precision = OURS[arguments.system]
    section = TowerSection(backbone=MINILM, adapter="none", precision=precision, trained_layers=layers)
    tower = build_tower(section, width=128, where="tower")
    texts = json.loads(arguments.titles.read_text(encoding="utf-8"))
    torch.set_grad_enabled(False)
    turns.begin()
    while True:
        tokens = tokenize(tower.backbone_info.tokenizer, texts, max_tokens=128)
        source: BatchSource = tokens
        if cached:
            source = open_prefix_cache(tower, tokens, root=cache_folder(), token_budget=4096)
        states = encode_states(tower, source, np.arange(len(texts)), token_budget=4096)
        if not arguments.output.exists():
            np.save(arguments.output, states / np.linalg.norm(states, axis=1, keepdims=True))
        turns.end(len(texts))


if __name__ == "__main__":
    main()
