import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

import lora_rec
from lora_rec.errors import BundleError
from lora_rec.towers.pooling import pool

TEXTS = ["war1 war2", "love3", "love4 ; war9 ; war3"]


@pytest.fixture(scope="module")
def towers(bundle, models):
    return lora_rec.load_towers(
        bundle, user_backbone=str(models["bert"]), item_backbone=str(models["llama"]), precision="fp32"
    )


@pytest.mark.parametrize(("name", "base"), [("user_tower", "bert"), ("item_tower", "llama")])
def test_plain_peft_gives_the_same_vectors(bundle, models, towers, name, base):
    model = PeftModel.from_pretrained(
        AutoModel.from_pretrained(models[base], dtype=torch.float32), bundle / name
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(models[base])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    batch = tokenizer(TEXTS, padding=True, padding_side="right", return_tensors="pt")
    with torch.no_grad():
        states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    tower = getattr(towers.model, name)
    with torch.no_grad():
        pooled = pool(states, batch["attention_mask"], pooling=tower.pooling)
        vectors = torch.nn.functional.normalize(tower.projection(pooled), dim=-1).numpy()
    ours = towers.encode_users(TEXTS) if name == "user_tower" else towers.encode_items(TEXTS)
    np.testing.assert_allclose(ours, vectors, atol=1e-5)
    with torch.no_grad(), model.disable_adapter():
        plain = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    assert not torch.allclose(plain, states, atol=1e-4)  # the adapter does something


def test_the_exported_vectors_are_those_of_the_towers(bundle, towers):
    rec = lora_rec.load(bundle)
    texts = towers.render_items(rec.item_fields)
    np.testing.assert_allclose(
        towers.encode_items(texts), rec.item_vectors, atol=5e-3
    )  # kept in half precision


def test_another_base_is_refused(bundle, models, tmp_path):
    other = tmp_path / "other"
    model = AutoModel.from_pretrained(models["bert"])
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    model.save_pretrained(other)
    AutoTokenizer.from_pretrained(models["bert"]).save_pretrained(other)
    with pytest.raises(
        BundleError, match=r"user_tower: the base at .* is not the one.*give the right one as user_backbone"
    ):
        lora_rec.load_towers(bundle, user_backbone=str(other), item_backbone=str(models["llama"]))


def test_a_history_is_written_as_in_training(towers):
    assert towers.render_histories([[0, 2]], {"title": ["a", "b", "c"]}) == ["c; a"]
