"""Heads that score tokens: the checkpoint's own, or one tied to the input embeddings."""

import numpy as np
import pytest
import torch
from tiny import EVERY, TEXTS
from tiny_names import DECODERS, ENCODERS
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from lora_rec.text.collate import tokenize
from lora_rec.towers.backbone import load_backbone
from lora_rec.towers.lm_head import OwnHead, TiedHead


def batch_for(backbone):
    return tokenize(backbone.tokenizer, TEXTS, max_tokens=32).batch(EVERY)


def states_of(backbone):
    batch = batch_for(backbone)
    options = backbone.options | {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    with torch.no_grad():
        return backbone.model(**options).last_hidden_state[batch.attention_mask.bool()]


@pytest.fixture
def with_head(backbone_folder, tmp_path):
    """Gives the folder of a tiny model that was saved with its head, and that model."""

    def make(name):
        auto = AutoModelForMaskedLM if name in ENCODERS else AutoModelForCausalLM
        torch.manual_seed(1)
        model = auto.from_pretrained(backbone_folder(name), dtype=torch.float32).eval()
        for key, parameter in model.named_parameters():
            if not key.startswith(model.base_model_prefix):
                torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(tmp_path / name)
        AutoTokenizer.from_pretrained(backbone_folder(name)).save_pretrained(tmp_path / name)
        return tmp_path / name, model

    return make


@pytest.mark.parametrize("name", (*ENCODERS, *DECODERS))
def test_the_checkpoints_head_gives_its_models_logits(with_head, name):
    folder, model = with_head(name)
    backbone = load_backbone(str(folder), device="cpu", lm_head=True)
    assert isinstance(backbone.lm_head, OwnHead)
    assert not any(p.requires_grad for p in backbone.lm_head.parameters())
    batch = batch_for(backbone)
    with torch.no_grad():
        whole = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **backbone.options)
        logits = backbone.lm_head(states_of(backbone))
    expected = whole.logits[batch.attention_mask.bool()]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert logits.std() > 0.1  # so that a head that gives nothing would be seen


@pytest.mark.parametrize("precision", ["fp32", "bf16", "8bit", "4bit"])
@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_a_backbone_is_the_same_with_a_head_and_without(with_head, name, precision):
    """The prefix cache does not ask which of the two computed what it holds."""
    folder, _ = with_head(name)
    one = load_backbone(str(folder), precision=precision, device="cpu", lm_head=True)
    other = load_backbone(str(folder), precision=precision, device="cpu")
    assert other.lm_head is None
    assert torch.equal(states_of(one), states_of(other))
    assert torch.isfinite(one.lm_head(states_of(one))).all()


@pytest.mark.parametrize("name", ["bert", "electra", "llama"])
def test_without_a_head_in_the_checkpoint_the_embeddings_serve(backbone_folder, name):
    backbone = load_backbone(str(backbone_folder(name)), device="cpu", lm_head=True)
    head = backbone.lm_head
    assert isinstance(head, TiedHead)
    states = states_of(backbone)
    embeddings = backbone.model.get_input_embeddings().weight
    assert {n: p.requires_grad for n, p in head.named_parameters()} == {"map.weight": True, "bias": True}
    assert not embeddings.requires_grad
    torch.testing.assert_close(head(states), states @ head.map.weight.T @ embeddings.T)
    identity = np.array_equal(head.map.weight.detach().numpy(), np.eye(*head.map.weight.shape))
    assert identity == (name != "electra")  # whose embeddings are narrower than its states
