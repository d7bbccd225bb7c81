"""Several adapters on one base: add, use, mix, remove, and several in one batch."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny import rewrite

import lora_rec
from lora_rec.errors import BundleError, DataError, TowerError

TEXTS = ["war war1", "love love3 ; war9", "love4 ; war9 ; war3"]


@pytest.fixture(scope="module")
def other(make_bundle):
    """The same bases, trained to something else."""
    return make_bundle("other", train={"seed": 5, "learning_rate": 0.03})


@pytest.fixture(scope="module")
def ranked(make_bundle):
    """The same bases under AdaLoRA: saved as a LoRA whose modules have different ranks."""
    return make_bundle(
        "ranked",
        user_tower={"adapter": "adalora", "init_rank": 6, "target_rank": 2},
        item_tower={"adapter": "adalora", "init_rank": 6, "target_rank": 2},
        train={"epochs": 6, "learning_rate": 0.03},
    )


def load(models, bundle):
    return lora_rec.load_towers(
        bundle, user_backbone=str(models["bert"]), item_backbone=str(models["llama"]), precision="fp32"
    )


def vectors(towers):
    return np.concatenate([towers.encode_users(TEXTS), towers.encode_items(TEXTS)])


def test_switching_gives_what_each_gives_alone_and_leaves_no_trace(models, bundle, other, ranked):
    towers = load(models, bundle)
    before = vectors(towers)
    towers.add(other, name="news")
    towers.add(ranked, name="music")
    assert towers.adapters == ["default", "news", "music"]
    assert np.array_equal(vectors(towers), before)
    for name, folder in (("news", other), ("music", ranked)):
        towers.use(name)
        assert towers.active == {"user_tower": name, "item_tower": name}
        np.testing.assert_allclose(vectors(towers), vectors(load(models, folder)), atol=1e-6)
        assert np.abs(vectors(towers) - before).max() > 1e-2
    towers.use("default")
    towers.remove("news")
    towers.remove("music")
    assert np.array_equal(vectors(towers), before)
    assert towers.adapters == ["default"]
    assert not [n for n, _ in towers.model.named_parameters() if ".news." in n or ".music." in n]


def test_what_does_not_work_in_the_towers_precision_is_refused_before_it_is_added(models, bundle, other):
    dora = rewrite(other, other.parent / "dora", make_dora)
    towers = lora_rec.load_towers(
        bundle, user_backbone=str(models["bert"]), item_backbone=str(models["llama"]), precision="8bit"
    )
    before = towers.encode_items(TEXTS)
    with pytest.raises(
        BundleError, match="its adapter 'lora' does not work in 8bit .dora: reads the weights"
    ):
        towers.add(dora, name="dora")
    assert towers.adapters == ["default"]
    assert np.array_equal(towers.encode_items(TEXTS), before)


def make_dora(folder):
    """Says that it is one, which is all that is looked at."""
    manifest = json.loads((folder / "bundle.json").read_text())
    for name in ("user_tower", "item_tower"):
        manifest[name]["adapter_settings"]["dora"] = True
    (folder / "bundle.json").write_text(json.dumps(manifest))


def test_a_bundle_whose_adapter_peft_does_not_have_is_refused(models, bundle, make_bundle):
    own = make_bundle(
        "own-format", item_tower={"adapter": "bottleneck"}, user_tower={"adapter": "bottleneck"}
    )
    towers = load(models, bundle)
    with pytest.raises(TowerError, match="holds a non-PEFT adapter, which cannot stand beside a LoRA; load"):
        towers.add(own, name="own")


def test_texts_are_a_list_of_any_kind(models, bundle):
    towers = load(models, bundle)
    expected = towers.encode_items(TEXTS)
    assert np.array_equal(towers.encode_items(np.array(TEXTS)), expected)
    assert towers.encode_items([]).shape == (0, expected.shape[1])
    for call in (towers.encode_items, towers.encode_users, towers.read_items):
        with pytest.raises(DataError, match="texts: 'war' is one string, which would be read by letters"):
            call("war")


def test_one_tower_alone_can_switch(models, bundle, other):
    towers = load(models, bundle)
    users, items = towers.encode_users(TEXTS), towers.encode_items(TEXTS)
    towers.add(other, name="news")
    towers.use("news", tower="item_tower")
    assert np.array_equal(towers.encode_users(TEXTS), users)
    assert not np.allclose(towers.encode_items(TEXTS), items, atol=1e-2)


def test_switching_takes_less_than_50_ms(models, bundle, other):
    towers = load(models, bundle)
    towers.add(other, name="news")
    seconds = []
    for name in ("news", "default") * 5:
        began = time.perf_counter()
        towers.use(name)
        seconds.append(time.perf_counter() - began)
    assert sorted(seconds)[5] < 0.05


@pytest.mark.parametrize("weights", [{"default": 0.3, "news": 0.7}, {"default": 1.0, "music": -0.5}])
def test_a_mix_is_the_weighted_sum_of_updates_and_maps(models, bundle, other, ranked, weights):
    towers = load(models, bundle)
    towers.add(other, name="news")
    towers.add(ranked, name="music")
    before = vectors(towers)
    towers.mix(weights, name="both")
    assert np.array_equal(vectors(towers), before)
    towers.use("both")
    for name in ("user_tower", "item_tower"):
        tower = getattr(towers.model, name)
        n_checked = 0
        for module in tower.model.modules():
            if not hasattr(module, "get_delta_weight") or "both" not in module.lora_A:
                continue
            parts = [w * module.get_delta_weight(n) for n, w in weights.items() if n in module.lora_A]
            torch.testing.assert_close(module.get_delta_weight("both"), sum(parts), atol=1e-6, rtol=0)
            n_checked += 1
        assert n_checked
        states = torch.randn(3, tower.hidden_size)
        mixed = tower.projection(states)
        parts = []
        for part, weight in weights.items():
            towers.use(part)
            parts.append(weight * tower.projection(states))
        torch.testing.assert_close(mixed, sum(parts), atol=1e-4, rtol=1e-4)
        towers.use("both")
    assert np.abs(vectors(towers) - before).max() > 1e-2


def test_one_batch_holds_several_adapters(models, bundle, other):
    towers = load(models, bundle)
    towers.add(other, name="news")
    alone = {}
    for name in ("default", "news"):
        towers.use(name)
        alone[name] = towers.encode_items(TEXTS)
    together = towers.encode_items(TEXTS, adapters=["news", "default", "news"])
    expected = np.stack([alone["news"][0], alone["default"][1], alone["news"][2]])
    np.testing.assert_allclose(together, expected, atol=1e-5)


def test_threads_that_ask_for_different_adapters_do_not_meet(models, bundle, other):
    towers = load(models, bundle)
    towers.add(other, name="news")
    expected = {
        name: towers.encode_items(TEXTS, adapters=[name] * len(TEXTS)) for name in ("default", "news")
    }

    def ask(turn):
        name = "news" if turn % 2 else None
        given = towers.encode_items(TEXTS, adapters=name and [name] * len(TEXTS))
        return np.allclose(given, expected[name or "default"], atol=1e-5)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(40)))


@pytest.mark.parametrize("base", ["deberta-v2", "opt"])
def test_one_batch_holds_several_adapters_of_any_type(make_bundle, backbone_folder, base):
    folder = str(backbone_folder(base))
    settings = {"backbone": folder, "target_modules": ["all-linear"], "pooling": None}
    bundles = [
        make_bundle(f"{base}-{seed}", item_tower=settings | {"dora": dora}, train={"seed": seed})
        for seed, dora in ((1, False), (2, True))
    ]
    bases = {"item_backbone": folder}
    bases["user_backbone"] = str(backbone_folder("bert"))
    towers = lora_rec.load_towers(bundles[0], **bases)
    towers.add(bundles[1], name="other")
    alone = lora_rec.load_towers(bundles[1], **bases).encode_items(TEXTS)
    first = towers.encode_items(TEXTS)
    mixed = towers.encode_items(TEXTS, adapters=["other", "default", "other"])
    np.testing.assert_allclose(mixed, np.stack([alone[0], first[1], alone[2]]), atol=1e-5)
    assert np.array_equal(towers.encode_items(TEXTS), first)
    # A DoRA beside them does not keep plain LoRAs from being mixed; it cannot be mixed itself.
    towers.mix({"default": 0.5}, name="blend")
    with pytest.raises(TowerError, match="a DoRA is not a sum of factors"):
        towers.mix({"default": 0.5, "other": 0.5}, name="both")


def test_nothing_is_left_of_an_adapter_that_does_not_load(models, bundle, other, tmp_path):
    towers = load(models, bundle)
    before = vectors(towers)

    def grow(place):
        file = place / "item_tower" / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"r": 7}))

    broken = rewrite(other, tmp_path / "broken", grow)
    for _ in range(2):
        with pytest.raises(BundleError, match="item_tower: the saved adapter does not load"):
            towers.add(broken, name="x")
    assert not [n for n, _ in towers.model.named_parameters() if ".x." in n]
    assert np.array_equal(vectors(towers), before)
    towers.add(other, name="x")


def test_another_precision_is_warned_of(models, make_bundle, bundle, caplog):
    towers = load(models, bundle)
    towers.add(make_bundle("four-bit-news", item_tower={"precision": "4bit"}), name="four")
    assert "item_tower: the added adapter was trained on weights in 4bit and is used on fp32" in caplog.text


def test_what_cannot_be_done_is_said(models, bundle, other, make_bundle, tmp_path):
    towers = load(models, bundle)
    towers.add(other, name="news")
    with pytest.raises(TowerError, match="there is one named 'news'; remove it first"):
        towers.add(other, name="news")
    with pytest.raises(TowerError, match=r"no adapter 'nws'; did you mean 'news'\?"):
        towers.use("nws")
    with pytest.raises(TowerError, match="adapter 'default' is in use; use another one"):
        towers.remove("default")
    with pytest.raises(TowerError, match="2 adapters for 3 texts; name one for each"):
        towers.encode_items(TEXTS, adapters=["news", "default"])
    for name in ("a.b", "items", "__base__", "base/x"):
        with pytest.raises(TowerError, match=f"'{name}' cannot name an adapter"):
            towers.mix({"news": 1.0}, name=name)
    for weights in ({}, {"news": 0.0}, {"default": 1.0, "news": float("nan")}):
        with pytest.raises(TowerError, match="nothing to mix in"):
            towers.mix(weights, name="mixed")
    with pytest.raises(BundleError, match="pools by first, this tower by mean"):
        towers.add(make_bundle("first", user_tower={"pooling": "first"}), name="first")
    with pytest.raises(BundleError, match="embeddings are 6 wide, these are 8"):
        towers.add(make_bundle("narrow", train={"width": 6}), name="narrow")
    scaled = make_bundle("scaled", item_tower={"adapter": "ia3"}, train={"learning_rate": 0.03})
    with pytest.raises(TowerError, match="holds a IA3 adapter, which cannot stand beside a LoRA"):
        towers.add(scaled, name="scaled")
    assert towers.adapters == ["default", "news"]
    with pytest.raises(TowerError, match=r"only towers with a LoRA \(lora or adalora\) can hold several"):
        load(models, scaled).use("default")
    shutil.copytree(other, tmp_path / "cut")
    (tmp_path / "cut" / "item_tower" / "adapter_model.safetensors").unlink()
    with pytest.raises(BundleError, match="missing"):
        towers.add(tmp_path / "cut", name="cut")
