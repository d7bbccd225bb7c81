"""Towers from the Hub: by our loader, by plain peft, one alone; bases and adapters that do not fit."""

import json
import re

import numpy as np
import pytest
import torch
from hub_server import WRITE_TOKEN
from test_hub_errors import fails
from test_hub_round_trip import push
from tiny import make_tower, rewrite, tokens_of, train

import lora_rec
from lora_rec.errors import BundleError, RecipeError, TowerError
from lora_rec.recipe import TowerSection
from lora_rec.schema import TOWERS

TEXTS = ["war1 war2", "love3 love4 ; war9"]
CALLS = {"user_tower": "encode_users", "item_tower": "encode_items"}


@pytest.fixture
def bases(models):
    return {"user_backbone": str(models["bert"]), "item_backbone": str(models["llama"])}


@pytest.fixture(scope="module")
def learned(make_bundle):
    """A bundle whose towers have moved."""
    return make_bundle("learned", train={"epochs": 1})


@pytest.fixture
def near(learned, bases):
    towers = lora_rec.load_towers(learned, **bases)
    return {name: getattr(towers, call)(TEXTS) for name, call in CALLS.items()}


def test_plain_peft_loads_each_folder(client, learned, models, near):
    push(client, learned, "ann/learned")
    code = """
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel
base = AutoModel.from_pretrained(folder)
before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
model = PeftModel.from_pretrained(base, 'ann/learned', subfolder=subfolder)
value = [model.peft_config['default'].base_model_name_or_path]
value.append(max(float(p.abs().max()) for n, p in model.named_parameters() if '.lora_B.' in n))
"""
    for name, model in zip(TOWERS, ("bert", "llama"), strict=True):
        base, size = client.value(code, folder=str(models[model]), subfolder=name)
        assert base == f"tiny-{model}"
        assert size > 0


def test_the_code_on_the_card_gives_the_same_vectors(client, hub, learned, models, near):
    push(client, learned, "ann/learned")
    card = hub.store.get(hub.store.files("ann/learned", "main")["README.md"]["sha256"]).decode()
    (code,) = re.findall(r"```python\n(import torch\n.*?)```", card, flags=re.S)
    code = code.replace("FOLDER/tiny-llama", str(models["llama"]))
    code = code.replace("['A text of an item']", repr(TEXTS))
    found = client.value(code + "\nvalue = vectors.tolist()")
    assert np.allclose(found, near["item_tower"], atol=1e-5)


def test_load_towers_by_name(client, learned, bases, near):
    push(client, learned, "ann/learned")
    code = "import lora_rec\ntowers = lora_rec.load_towers('ann/learned', **bases)\n"
    code += "value = {name: getattr(towers, call)(texts).tolist() for name, call in calls.items()}"
    found = client.value(code, bases=bases, texts=TEXTS, calls=CALLS)
    for name in TOWERS:
        assert np.array_equal(np.array(found[name], dtype=np.float32), near[name])


@pytest.mark.parametrize("name", TOWERS)
def test_a_bundle_with_one_tower(client, hub, learned, bases, near, name):
    push(client, learned, f"ann/{name}", towers=[name])
    other = next(n for n in TOWERS if n != name)
    assert not [path for path in hub.store.files(f"ann/{name}", "main") if path.startswith(other)]
    folder = client.value(
        "from lora_rec.hub import find_bundle\nvalue = str(find_bundle(name))", name=f"ann/{name}"
    )
    towers = lora_rec.load_towers(folder, **bases)
    assert np.array_equal(getattr(towers, CALLS[name])(TEXTS), near[name])
    with pytest.raises(BundleError, match=f"{other}: this bundle does not hold it, it holds {name}"):
        getattr(towers, CALLS[other])(TEXTS)
    fields = {"title": ["war war1", "love love3"]}
    with pytest.raises(BundleError, match=f"{other}: this bundle does not hold it, it holds {name}"):
        towers.explain([0], 1, fields, n_subsets=2)
    towers.add(learned, name="whole")
    towers.use("whole")
    with pytest.raises(BundleError, match=f"{other}: this bundle does not hold it, it holds {name}"):
        getattr(towers, CALLS[other])(TEXTS)
    assert len(lora_rec.load(folder).recommend(["i3"], k=3)) == 3
    assert lora_rec.load(folder).manifest.towers.keys() == {name}


def test_adapters_that_do_not_fit(learned, bases, models, tmp_path, backbone_folder):
    with pytest.raises(BundleError, match="is not the one that the adapter was trained on"):
        lora_rec.load_towers(learned, **(bases | {"item_backbone": str(models["gpt2"])}))

    def edit(change, file="item_tower/adapter_config.json"):
        def rewriting(place):
            tree = json.loads((place / file).read_text())
            change(tree)
            (place / file).write_text(json.dumps(tree))

        return rewrite(learned, tmp_path / str(len(list(tmp_path.iterdir()))), rewriting)

    cases = {
        "names modules to import (megatron_config)": lambda c: c.update(megatron_config={"a": 1}),
        "asks for r=100000; the limit is 4096": lambda c: c.update(r=100000),
        "does not load": lambda c: c.update(r=4),
    }
    for text, change in cases.items():
        with pytest.raises(BundleError, match=re.escape(text)):
            lora_rec.load_towers(edit(change), **bases)


def test_a_run_that_cannot_push_is_not_lost(client, hub, learned, monkeypatch, tmp_path):
    code = """
from pathlib import Path
from lora_rec.hub_section import HubSection
from lora_rec.pipeline.hub import check_push, push_after_run
section = HubSection(**settings)
check_push(section)
value = push_after_run(section, Path(bundle))
"""
    settings = {"push": "ann/run", "private": True, "commit_message": "a run"}
    done = client.value(code, settings=settings, bundle=str(learned))
    assert done == f"pushed: ann/run, commit {hub.store.resolve('ann/run', 'main')}"
    assert client.value(code, settings={}, bundle=str(learned)) is None
    hub.fail("/api/", times=99)
    failed = client.run(code, settings=settings, bundle=str(learned))
    command = f"lora-rec push {learned} ann/run --private --message 'a run'"
    assert failed.value.startswith(
        "NOT pushed (ann/run: the Hub is in trouble (status 500); try again later)"
    )
    assert failed.value.endswith(f"the bundle is safe in {learned}; by hand: {command}")
    client.value("import os\nos.environ.pop('HF_TOKEN')")
    without = client.run(code, settings=settings, bundle=str(learned))
    assert "there is no token, so the push at the end will fail" in without.log
    assert "there is no token; log in first" in without.value
    assert WRITE_TOKEN not in without.log


def saved_lora(folder, place, **settings):
    """A plain LoRA, saved by peft alone, that has moved."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    torch.manual_seed(0)
    last = [f"layers.2.self_attn.{name}" for name in ("q_proj", "v_proj")]
    given = {"r": 4, "target_modules": last} | settings
    model = get_peft_model(AutoModel.from_pretrained(folder), LoraConfig(**given))
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(place)
    config = json.loads((place / "adapter_config.json").read_text())
    (place / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "tiny-llama"}))
    return model.eval()


def test_a_plain_adapter_from_the_hub_starts_a_tower(client, hub, models, tmp_path):
    model = saved_lora(models["llama"], tmp_path / "plain")
    hub.store.create("ann/plain-start", private=False)
    files = {f"item/{path.name}": path.read_bytes() for path in (tmp_path / "plain").iterdir()}
    hub.store.commit("ann/plain-start", "main", "peft", files, {}, [])
    find = "from lora_rec.hub.adapter import find_adapter\nvalue = str(find_adapter(name))"
    folder = client.value(find, name="ann/plain-start/item")
    fails(client, find, "HubError", "a file is missing on the Hub", name="ann/plain-start/nothing")
    tower = make_tower(models["llama"], start_from=folder, trained_layers=1)
    texts = tokens_of(tower)
    batch = texts.batch(np.arange(1))
    with torch.no_grad():
        wanted = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state[0]
    assert torch.allclose(tower.encode_tokens(batch)[0], wanted, atol=1e-5)
    assert tower.adapter.settings["lora_rank"] == 4
    before = {name: p.detach().clone() for name, p in tower.trained_parameters().items()}
    train(tower)
    assert all(not torch.equal(before[name], p) for name, p in tower.trained_parameters().items())
    with pytest.raises(TowerError, match="was trained on tiny-llama, the tower's backbone is tiny-gpt2"):
        make_tower(models["gpt2"], start_from=folder)
    saved_lora(models["llama"], tmp_path / "dora", use_dora=True)
    with pytest.raises(TowerError, match=r"settings that no tower in 8bit has \(dora: reads the weights"):
        make_tower(models["llama"], start_from=str(tmp_path / "dora"), precision="8bit")
    saved_lora(models["llama"], tmp_path / "deep", target_modules=["q_proj", "v_proj"])
    with pytest.raises(TowerError, match=r"acts on layers.0.*set item_tower.trained_layers=null"):
        make_tower(models["llama"], start_from=str(tmp_path / "deep"))
    make_tower(models["llama"], start_from=str(tmp_path / "deep"), trained_layers=None)
    saved_lora(models["llama"], tmp_path / "heads", modules_to_save=["embed_tokens"])
    with pytest.raises(TowerError, match="also has modules_to_save, which no tower has"):
        make_tower(models["llama"], start_from=str(tmp_path / "heads"))


def test_a_run_from_a_plain_adapter_goes_through_a_bundle(make_bundle, models, bases, tmp_path):
    saved_lora(models["llama"], tmp_path / "plain")
    bundle = make_bundle("continued", item_tower={"start_from": str(tmp_path / "plain")})
    assert str(tmp_path) not in (bundle / "recipe.yaml").read_text()
    towers = lora_rec.load_towers(bundle, **bases)
    rec = lora_rec.load(bundle)
    texts = towers.render_items(rec.item_fields)
    assert (towers.encode_items(texts) * rec.item_vectors).sum(axis=1).min() > 0.98


def test_settings_that_start_from_would_ignore_are_refused():
    with pytest.raises(RecipeError, match="lora_rank: has no effect with start_from"):
        TowerSection(start_from="ann/x", lora_rank=4)
    with pytest.raises(RecipeError, match="start_from: a LoRA, and adapter is 'ia3'"):
        TowerSection(start_from="ann/x", adapter="ia3")
