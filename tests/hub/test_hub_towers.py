"""Towers from the Hub: by our loader, by plain peft, one alone; bases and adapters that do not fit."""

import json
import re

import numpy as np
import pytest
from hub_server import WRITE_TOKEN
from test_hub_round_trip import push
from tiny import rewrite

import lora_rec
from lora_rec.errors import BundleError
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
