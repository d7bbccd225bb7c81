import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from lora_rec.cache import list_cache
from lora_rec.errors import TrainingError
from lora_rec.pipeline.towers import build_tower
from lora_rec.recipe import TowerSection
from lora_rec.text.collate import tokenize
from lora_rec.towers.two_tower import encode
from lora_rec.train.prefix_cache import cache_key, open_prefix_cache

TEXTS = ["war1", "war1 war2 love3 love4", "love1 love2 ; war7", "war1"]


def tower_of(models, name, **settings):
    section = TowerSection(backbone=str(models[name]), **({"trained_layers": 1} | settings))
    return build_tower(section, width=8, where="tower")


def open_counting(tower, texts, root, *, token_budget=64, accelerator=None):
    computed = []

    def count(batches):
        for batch in batches:
            computed.extend(batch.tolist())
            yield batch

    tokens = tokenize(tower.backbone_info.tokenizer, texts, max_tokens=32)
    cached = open_prefix_cache(
        tower, tokens, root=root, token_budget=token_budget, accelerator=accelerator, progress=count
    )
    return tokens, cached, len(computed)


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_cached_equals_uncached(models, name, tmp_path):
    tower = tower_of(models, name)
    for parameter in tower.trained_parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens, cached, _ = open_counting(tower, TEXTS, tmp_path)
    every = np.arange(len(TEXTS))
    uncached = encode(tower, tokens, every, token_budget=64)
    np.testing.assert_allclose(
        encode(tower, cached, every, token_budget=64), uncached, atol=2e-3
    )  # half precision


def test_bf16_states_are_kept_bit_for_bit(models, tmp_path):
    tower = tower_of(models, "llama", precision="bf16")
    tokens, cached, _ = open_counting(tower, TEXTS[:1], tmp_path)
    kept = cached.batch(np.array([0])).hidden_states
    assert kept.dtype == torch.bfloat16
    assert torch.equal(kept, tower.encode_prefix(tokens.batch(np.array([0]))))


def test_each_distinct_text_is_computed_once_and_read_ever_after(models, tmp_path):
    tower = tower_of(models, "llama")
    assert open_counting(tower, TEXTS, tmp_path)[2] == 3
    assert open_counting(tower, TEXTS, tmp_path)[2] == 0
    assert open_counting(tower, [*TEXTS, "love9"], tmp_path)[2] == 1


def test_a_changed_key_is_never_read(models, tmp_path):
    tower = tower_of(models, "llama")
    open_counting(tower, TEXTS, tmp_path)
    assert open_counting(tower_of(models, "llama", trained_layers=2), TEXTS, tmp_path)[2] == 3
    assert open_counting(tower_of(models, "llama", precision="bf16"), TEXTS, tmp_path)[2] == 3
    other = tower_of(models, "llama")
    other.backbone_info = replace(other.backbone_info, fingerprint="another")
    assert cache_key(other) != cache_key(tower)


def test_a_killed_write_is_not_read(models, tmp_path):
    tower = tower_of(models, "llama")
    folder = tmp_path / "prefix" / cache_key(tower)
    (folder / "tmp-killed").mkdir(parents=True)
    (folder / "tmp-killed" / "states.bin").write_bytes(b"half")
    assert open_counting(tower, TEXTS, tmp_path)[2] == 3


def test_what_killed_runs_left_is_removed_once_it_is_old(models, tmp_path):
    tower = tower_of(models, "llama")
    folder = tmp_path / "prefix" / cache_key(tower)
    for name, age in (("tmp-old", 7200), ("tmp-new", 60)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (time.time() - age,) * 2)
    open_counting(tower, TEXTS, tmp_path)
    assert [path.name for path in folder.glob("tmp-*")] == ["tmp-new"]


@pytest.mark.parametrize(
    ("file", "n_bytes"), [("states.bin", 100), ("offsets.npy", 0), ("digests.bin", 16), ("offsets.npy", None)]
)
def test_a_damaged_segment_is_computed_anew(models, tmp_path, caplog, file, n_bytes):
    tower = tower_of(models, "llama")
    every = np.arange(len(TEXTS))
    before = open_counting(tower, TEXTS, tmp_path)[1].batch(every).hidden_states
    (segment,) = tmp_path.glob("prefix/*/segment-*")
    if n_bytes is None:
        (segment / file).unlink()
    else:
        (segment / file).write_bytes((segment / file).read_bytes()[:n_bytes])
    _, after, n_computed = open_counting(tower, TEXTS, tmp_path)
    assert n_computed == 3
    assert f"{segment}: damaged" in caplog.text
    assert torch.equal(before, after.batch(every).hidden_states)


@pytest.mark.parametrize("step", ["posix_fallocate", "rename"])
def test_a_full_or_locked_disk_is_one_error(models, tmp_path, monkeypatch, step):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(TrainingError, match="cannot be written .No space left on device.; free space, set"):
        open_counting(tower_of(models, "llama"), TEXTS, tmp_path)
    assert not list(tmp_path.glob("prefix/*/*-*"))


@dataclass
class Process:
    """One of several that wait for each other, as accelerate's do."""

    process_index: int
    num_processes: int
    barrier: threading.Barrier

    def wait_for_everyone(self):
        self.barrier.wait(timeout=60)


@pytest.mark.parametrize("shared", [True, False])
def test_processes_share_the_work_and_get_the_bits_of_one(models, tmp_path, shared):
    texts = [f"war{n} love{n} war{n + 1}" + " war" * n for n in range(9)]
    _, alone, _ = open_counting(tower_of(models, "llama"), texts, tmp_path / "alone", token_budget=16)
    barrier = threading.Barrier(2)
    towers = [tower_of(models, "llama") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        found = [
            pool.submit(
                open_counting,
                tower,
                texts,
                tmp_path / ("both" if shared else f"host-{index}"),
                token_budget=16,
                accelerator=Process(index, 2, barrier),
            )
            for index, tower in enumerate(towers)
        ]
        results = [future.result() for future in found]
    counts = [n for _, _, n in results]
    assert sum(counts) == (len(texts) if shared else 2 * len(texts))
    assert min(counts) > 0
    for _, cached, _ in results:
        for index in range(len(texts)):
            one, other = (c.batch(np.array([index])).hidden_states for c in (cached, alone))
            assert torch.equal(one, other)


def test_the_folder_says_what_it_is_of(models, tmp_path):
    tower = tower_of(models, "llama")
    open_counting(tower, TEXTS, tmp_path)
    (entry,) = list_cache(tmp_path)
    assert entry.kind == "prefix"
    assert entry.about.endswith("fp32, below layer 2, in 1 segments")
