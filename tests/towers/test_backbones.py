"""Every described type of backbone, from encoding to merging."""

import shutil

import numpy as np
import pytest
import torch
from peft import PeftModel
from tiny import EVERY, batch_of, make_tower, states_of, tokens_of, train
from tiny_names import DECODERS, ENCODERS
from transformers import AutoModel

from lora_rec.errors import TowerError
from lora_rec.pipeline.sources import open_source
from lora_rec.pipeline.towers import build_tower
from lora_rec.recipe import TowerSection
from lora_rec.text.collate import TokenizedTexts
from lora_rec.towers.adapters import load_adapter, save_adapter
from lora_rec.towers.backbone import load_backbone
from lora_rec.towers.layout import FAMILIES, count_positions
from lora_rec.towers.pooling import pool
from lora_rec.towers.source import fingerprint, weight_bytes
from lora_rec.towers.two_tower import encode_states
from lora_rec.train.prefix_cache import open_prefix_cache

pytestmark = pytest.mark.usefixtures("device")

TYPES = (*ENCODERS, *DECODERS)


def test_every_described_type_is_tested():
    assert set(TYPES) == set(FAMILIES)


@pytest.mark.parametrize("name", TYPES)
def test_encode_train_save_load_cache_and_merge(backbone_folder, tmp_path, name):
    folder = backbone_folder(name)
    tower = make_tower(folder)
    info = tower.backbone_info
    start = states_of(tower)

    # Encoding: a text alone gives what it gives in a batch, and different texts differ.
    for i in EVERY:
        alone = encode_states(tower, tokens_of(tower), np.array([i]), token_budget=1000)
        np.testing.assert_allclose(alone[0], start[i], atol=1e-4)
    assert np.abs(start[1] - start[2]).max() > 1e-2

    # The adapter starts as the identity.
    plain = load_backbone(str(folder), device=tower.device)
    batch = batch_of(tower)
    with torch.no_grad():
        whole = plain.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **info.options)
    expected = pool(whole.last_hidden_state, batch.attention_mask, pooling=tower.pooling)
    np.testing.assert_allclose(start, expected.cpu().numpy(), atol=1e-5)

    # Training moves every tensor of the adapter and none of the backbone.
    before = {n: p.clone() for n, p in plain.model.state_dict().items()}
    train(tower)
    after = states_of(tower)
    assert np.abs(after - start).max() > 1e-2
    base = {n.replace(".base_layer", ""): p for n, p in info.model.state_dict().items() if ".lora_" not in n}
    assert all(torch.equal(base[n], p) for n, p in before.items() if n in base)
    assert len(set(before) & set(base)) > 10

    # Cached as uncached: nothing below the cut is run again.
    if tower.first_trained_layer > 0:
        cached = open_prefix_cache(tower, tokens_of(tower), root=tmp_path / "cache", token_budget=64)
        assert cached.batch(EVERY).hidden_states is not None
        np.testing.assert_allclose(states_of(tower, cached), after, atol=2e-2)

    # Saved and loaded, by us and by plain peft, then merged: always the same states.
    save_adapter(tower.adapter, tmp_path / "adapter", base_model_id="tiny", revision=None)
    again = make_tower(folder, adapter="none")
    loaded = load_adapter(
        again.backbone_info.model,
        tmp_path / "adapter",
        tower.adapter.settings,
        first_layer=tower.first_trained_layer,
        where="item_tower",
    )
    again.adapter, again.model = loaded, loaded.model
    np.testing.assert_allclose(states_of(again), after, atol=1e-5)
    model = PeftModel.from_pretrained(
        AutoModel.from_pretrained(folder, dtype=torch.float32), tmp_path / "adapter"
    )
    model = model.to(tower.device)
    for candidate in (model.eval(), model.merge_and_unload().eval()):
        with torch.no_grad():
            out = candidate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **info.options)
        pooled = pool(out.last_hidden_state, batch.attention_mask, pooling=tower.pooling)
        np.testing.assert_allclose(pooled.cpu().numpy(), after, atol=1e-4)


@pytest.mark.parametrize("name", TYPES)
def test_the_longest_text_is_what_the_positions_allow(backbone_folder, name):
    """Tiny models have 64 positions; RoBERTa's begin with the second row behind the padding's."""
    tower = make_tower(backbone_folder(name))
    n_positions = count_positions(tower.backbone_info.model)
    rotary = "modernbert gpt_neox bloom llama mistral qwen2 qwen3 gemma gemma2 gemma3_text phi phi3".split()
    expected = None if name in rotary else 63 if "roberta" in name else 64
    assert n_positions == expected
    length = n_positions or 100

    def encode(n_tokens):
        tokens = TokenizedTexts(np.full(n_tokens, 5, np.int32), np.array([0, n_tokens]))
        return encode_states(tower, tokens, np.zeros(1, np.int64), token_budget=1000)

    assert np.isfinite(encode(length)).all()
    if n_positions is not None:
        with pytest.raises(TowerError, match=f"has {length + 1} tokens, and the backbone has {length} posit"):
            encode(length + 1)


@pytest.mark.parametrize("name", ["bert", "opt", "llama"])
def test_virtual_tokens_take_positions(backbone_folder, name):
    tower = make_tower(backbone_folder(name), adapter="prefix")
    tokens = TokenizedTexts(np.full(56 + 57, 5, np.int32), np.array([0, 56, 56 + 57]))
    served = tower.tokenize(["war " * 200, "war"], max_tokens=128)  # the longest text of training had fewer
    assert served.lengths[0] == (128 if name == "llama" else 56)
    assert np.isfinite(encode_states(tower, tokens, np.zeros(1, np.int64), token_budget=1000)).all()
    if name != "llama":
        with pytest.raises(TowerError, match="items: .* 64 positions less 8 virtual tokens; set .* to 56"):
            open_source(tower, tokens, what="items", prefix_cache=True, token_budget=1000)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_either_kind_serves_either_tower(backbone_folder, name):
    section = TowerSection(backbone=str(backbone_folder(name)))
    for where in ("user_tower", "item_tower"):
        assert build_tower(section, width=8, where=where).pooling == ("mean" if name == "bert" else "last")


def test_a_shared_layer_cannot_be_cut(backbone_folder):
    tower = make_tower(backbone_folder("albert"), trained_layers=1)
    assert tower.first_trained_layer == 0  # an adapter in the one layer acts at every depth


def test_an_unknown_type_that_resembles_a_known_one(backbone_folder, monkeypatch):
    families = {k: v for k, v in FAMILIES.items() if k != "mistral"}
    monkeypatch.setattr("lora_rec.towers.layout.FAMILIES", families)
    names = make_tower(backbone_folder("mistral")).trained_parameters()
    assert {n.split(".lora_")[0].rsplit(".", 1)[1] for n in names} == {"q_proj", "v_proj"}


@pytest.mark.parametrize("name", ["foo", "cuda:99"])
def test_a_device_that_is_not_there(backbone_folder, name):
    with pytest.raises(TowerError, match=f"tower: device '{name}' cannot be used .*; name another"):
        load_backbone(str(backbone_folder("bert")), device=name, where="tower")


def test_an_unknown_type_is_told_what_is_missing(backbone_folder, monkeypatch):
    monkeypatch.setattr("lora_rec.towers.layout.FAMILIES", {"bert": FAMILIES["bert"]})
    with pytest.raises(TowerError, match=r"type 'bloom' is not described .*target_modules.*query_key_value"):
        make_tower(backbone_folder("bloom"))
    tower = make_tower(backbone_folder("bloom"), target_modules=("query_key_value",))
    assert len(tower.trained_parameters()) == 4


def test_a_type_that_is_neither(tmp_path):
    from transformers import T5Config

    T5Config(vocab_size=20, d_model=8, num_layers=1, num_heads=2).save_pretrained(tmp_path / "t5")
    with pytest.raises(
        TowerError, match="is of type 't5', neither a BERT-type encoder nor a GPT-type decoder"
    ):
        load_backbone(str(tmp_path / "t5"))


def test_a_type_that_reads_more_than_text(tmp_path):
    from transformers import Gemma3Config

    Gemma3Config().save_pretrained(tmp_path / "gemma3")
    with pytest.raises(TowerError, match="is of type 'gemma3', which reads more than text; give a model for"):
        load_backbone(str(tmp_path / "gemma3"))


def test_weights_that_lie_there_twice_count_once(backbone_folder, tmp_path):
    copy = shutil.copytree(backbone_folder("mistral"), tmp_path / "mistral")
    before = weight_bytes(copy), fingerprint(copy)
    shutil.copy(copy / "model.safetensors", copy / "consolidated.safetensors")
    assert (weight_bytes(copy), fingerprint(copy)) == before
