from dataclasses import replace

import numpy as np
import pytest
import torch

from lora_rec.pipeline.towers import build_tower
from lora_rec.recipe import TowerSection
from lora_rec.text.collate import tokenize
from lora_rec.towers.two_tower import encode
from lora_rec.train.prefix_cache import cache_key, open_prefix_cache

TEXTS = ["war1", "war1 war2 love3 love4", "love1 love2 ; war7", "war1"]


def tower_of(models, name, **settings):
    section = TowerSection(backbone=str(models[name]), **({"trained_layers": 1} | settings))
    return build_tower(section, width=8, where="tower")


def open_counting(tower, texts, root):
    computed = []

    def count(batches):
        for batch in batches:
            computed.extend(batch.tolist())
            yield batch

    tokens = tokenize(tower.backbone_info.tokenizer, texts, max_tokens=32)
    return tokens, open_prefix_cache(tower, tokens, root=root, token_budget=64, progress=count), len(computed)


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
