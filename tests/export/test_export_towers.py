import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny import make_tower, rewrite
from transformers import AutoModel, AutoTokenizer

import lora_rec
from lora_rec.errors import BundleError
from lora_rec.export.towers import describe_tower
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


def load(folder, models):
    return lora_rec.load_towers(
        folder, user_backbone=str(models["bert"]), item_backbone=str(models["llama"]), precision="fp32"
    )


def edit_tensors(change):
    def apply(place):
        file = place / "item_tower" / "adapter_model.safetensors"
        save_file(change(load_file(str(file))), str(file))

    return apply


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            edit_tensors(lambda ts: {n: t * 0 if "lora_B" in n else t for n, t in ts.items()}),
            "item_tower: the adapter changes nothing: with it the base gives its own vectors",
        ),
        (
            edit_tensors(lambda ts: {n.replace("layers.2", "layers.7"): t for n, t in ts.items()}),
            "item_tower: the saved adapter lacks base_model.model.layers.2.self_attn.q_proj",
        ),
        (
            edit_tensors(
                lambda ts: ts | {n.replace("layers.2", "layers.7"): t.clone() for n, t in ts.items()}
            ),
            "item_tower: the saved adapter has .*layers.7.* for which there is no module",
        ),
        (
            edit_tensors(lambda ts: {n: t / 0 for n, t in ts.items()}),
            "item_tower: tensor .* holds values that are not finite",
        ),
        (
            lambda place: (place / "item_tower" / "adapter_model.safetensors").unlink(),
            "item_tower: the bundle holds no weights for its adapter",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_an_adapter_that_does_nothing_or_is_damaged_is_refused(bundle, models, tmp_path, change, text):
    with pytest.raises(BundleError, match=text):
        load(rewrite(bundle, tmp_path / "changed", change), models)


def test_a_rank_beyond_reason_is_refused_before_it_is_allocated(bundle, models, tmp_path):
    def grow(place):
        file = place / "user_tower" / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"r": 100_000}))

    with pytest.raises(
        BundleError, match="user_tower: adapter_config.json asks for r=100000; the limit is 4096"
    ):
        load(rewrite(bundle, tmp_path / "changed", grow), models)


def test_a_rank_pattern_is_bounded_too(bundle, models, tmp_path):
    def grow(place):
        file = place / "user_tower" / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"rank_pattern": {"query": 200_000}}))

    with pytest.raises(BundleError, match="user_tower: adapter_config.json asks for query=200000; the limit"):
        load(rewrite(bundle, tmp_path / "changed", grow), models)


def test_weights_of_the_model_itself_are_not_put_on_codes(make_bundle, models):
    bundle = make_bundle(
        "all-full", user_tower={"adapter": "full"}, item_tower={"adapter": "full"}, train={"epochs": 3}
    )
    bases = {"user_backbone": str(models["bert"]), "item_backbone": str(models["llama"])}
    with pytest.raises(BundleError, match="its adapter 'full' does not work in 8bit"):
        lora_rec.load_towers(bundle, precision="8bit", **bases)


def test_a_missing_head_is_named(bundle, tmp_path):
    place = rewrite(bundle, tmp_path / "changed", lambda place: (place / "head.safetensors").unlink())
    with pytest.raises(BundleError, match=r"no ranking head \(head.safetensors\)"):
        lora_rec.load(place)


def test_towers_that_nothing_was_trained_for_hold_no_adapter(make_bundle, models):
    bundle = make_bundle("untrained", user_tower={"adapter": "none"}, item_tower={"adapter": "none"})
    assert not (bundle / "user_tower").exists()
    assert lora_rec.load(bundle).manifest.item_tower.adapter == "none"
    assert load(bundle, models).encode_items(TEXTS).shape == (3, 8)


@pytest.mark.parametrize("adapter", ["bottleneck", "prefix", "ia3", "vera", "loha", "layernorm", "full"])
def test_every_adapter_goes_through_a_bundle(make_bundle, models, adapter):
    towers = {"adapter": adapter}
    bundle = make_bundle(
        f"every-{adapter}", user_tower=towers, item_tower=towers, train={"epochs": 3, "learning_rate": 0.02}
    )
    rec, loaded = lora_rec.load(bundle), load(bundle, models)
    texts = loaded.render_items(rec.item_fields)
    np.testing.assert_allclose(loaded.encode_items(texts), rec.item_vectors, atol=5e-3)
    assert rec.manifest.item_tower.adapter == adapter


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({}, "none"), ({"lora_start": "pissa"}, "none"), ({"adapter": "prefix"}, "prefix")],
)
def test_an_adapter_that_no_epoch_made_better_is_left_out_unless_its_start_counts(models, settings, kept):
    tower = make_tower(models["llama"], **settings)
    described = describe_tower(tower, backbone="x", trained_layers=2, max_tokens=32, learned=False)
    assert described.adapter == kept
    learned = describe_tower(tower, backbone="x", trained_layers=2, max_tokens=32, learned=True)
    assert learned.adapter == settings.get("adapter", "lora")
