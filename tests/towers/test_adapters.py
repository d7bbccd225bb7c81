"""Every adapter: identity at its start, learns, survives the disk, and refuses what it cannot do."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tiny import batch_of, make_tower, reload, states_of, train
from transformers import AutoModel

from lora_rec.adapter_settings import ADAPTER_SETTINGS
from lora_rec.errors import BundleError, RecipeError, TowerError
from lora_rec.recipe import TowerSection
from lora_rec.schema import OWN_FORMAT
from lora_rec.towers.adapters import (
    add_adapter,
    check_adapter,
    read_lora_settings,
    save_adapter,
    start_from_inputs,
    use_adapter,
)
from lora_rec.towers.pooling import pool

pytestmark = pytest.mark.usefixtures("device")

VARIANTS = {
    "lora": {},
    "rslora": {"adapter": "lora", "rslora": True, "lora_alpha": 8.0},
    "dora": {"adapter": "lora", "dora": True},
    "lora+": {"adapter": "lora", "lora_plus_ratio": 8.0},
    "pissa": {"adapter": "lora", "lora_start": "pissa"},
    "olora": {"adapter": "lora", "lora_start": "olora"},
    "eva": {"adapter": "lora", "lora_start": "eva"},
    "adalora": {"adapter": "adalora", "init_rank": 4, "target_rank": 2},
    "prefix": {"adapter": "prefix"},
    "ia3": {"adapter": "ia3"},
    "bottleneck": {"adapter": "bottleneck", "bottleneck_width": 8},
    "vera": {"adapter": "vera", "lora_rank": 16},
    "loha": {"adapter": "loha", "lora_rank": 4},
    "oft": {"adapter": "oft", "oft_block_size": 8},
    "layernorm": {"adapter": "layernorm"},
    "full": {"adapter": "full"},
    "none": {"adapter": "none"},
}
NOT_ON_CONV1D = ("loha", "oft", "olora")


def start(tower):
    """Gives an EVA its start; the others have theirs."""
    batch = batch_of(tower)
    start_from_inputs(tower.adapter, tower.encode_states, [(batch, batch.attention_mask)])
    return tower


def test_every_adapter_is_tested():
    names = {settings.get("adapter", "lora") for settings in VARIANTS.values()}
    assert names == set(ADAPTER_SETTINGS)


@pytest.mark.parametrize("base", ["bert", "llama", "gpt2"])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "none"])
def test_start_learn_save_and_load(models, tmp_path, variant, base):
    if base == "gpt2" and variant in NOT_ON_CONV1D:  # peft has them for plain linear modules alone
        with pytest.raises(TowerError, match=f"'{variant}' does not work with the Conv1D modules of gpt2"):
            make_tower(models[base], **VARIANTS[variant])
        return
    plain = make_tower(models[base], adapter="none")
    frozen = {n: p.clone() for n, p in plain.backbone_info.model.state_dict().items()}
    tower = start(make_tower(models[base], **VARIANTS[variant]))
    if variant != "prefix":  # learned keys take attention from the first step on
        np.testing.assert_allclose(states_of(tower), states_of(plain), atol=1e-5)
    train(tower)
    learned = states_of(tower)
    assert np.abs(learned - states_of(plain)).max() > 1e-3
    if variant != "full":
        inside = tower.backbone_info.model.state_dict()
        names = {n.replace(".base_layer", ""): n for n in inside}
        assert all(torch.equal(inside[names[n]], p) for n, p in frozen.items() if n in names)
    again = reload(tower, models[base], tmp_path / "adapter")
    np.testing.assert_allclose(states_of(again), learned, atol=2e-5)


@pytest.mark.parametrize("base", ["bert", "llama"])
@pytest.mark.parametrize(
    "variant", [n for n in VARIANTS if VARIANTS[n].get("adapter") not in (*OWN_FORMAT, "none")]
)
def test_plain_peft_reads_the_folder(models, tmp_path, variant, base):
    # A prefix on some layers only has no meaning for peft, so here every layer has one.
    tower = start(make_tower(models[base], trained_layers=None, **VARIANTS[variant]))
    train(tower)
    save_adapter(tower.adapter, tmp_path / "adapter", base_model_id="tiny", revision=None)
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    names = settings.get("target_modules") or []
    assert isinstance(names, str) or names == sorted(names)  # the same file from run to run
    model = PeftModel.from_pretrained(
        AutoModel.from_pretrained(models[base], dtype=torch.float32), tmp_path / "adapter"
    ).eval()
    model = model.to(tower.device)
    batch = batch_of(tower)
    with torch.no_grad():
        out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    pooled = pool(out.last_hidden_state, batch.attention_mask, pooling=tower.pooling)
    np.testing.assert_allclose(pooled.cpu().numpy(), states_of(tower), atol=1e-4)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "none"])
def test_what_lies_below_the_trained_layers_is_never_touched(models, variant):
    tower = start(make_tower(models["llama"], trained_layers=1, **VARIANTS[variant]))
    batch = batch_of(tower)
    before = tower.encode_prefix(batch)
    train(tower)
    assert torch.equal(tower.encode_prefix(batch), before)
    inside = [n for n in tower.trained_parameters() if ".layers." in n]
    assert all(".layers.2." in name for name in inside)
    assert inside or variant == "prefix"


def test_rslora_scales_by_the_root_of_the_rank(models):
    for rslora, expected in ((True, 8.0 / 4**0.5), (False, 8.0 / 4)):
        tower = make_tower(models["llama"], rslora=rslora, lora_rank=4, lora_alpha=8.0)
        scalings = {m.scaling["default"] for m in tower.model.modules() if hasattr(m, "lora_A")}
        assert scalings == {expected}


@pytest.mark.parametrize("base", ["bert", "llama", "gpt2", "deberta-v2", "opt"])
@pytest.mark.parametrize(
    "settings",
    [
        {"lora_start": "eva"},
        {"lora_start": "eva", "target_modules": ("all-linear",)},
        {"lora_start": "pissa"},
        {"adapter": "adalora", "init_rank": 4, "target_rank": 2},
    ],
)
def test_what_is_trained_is_fp32_over_half_precision(backbone_folder, settings, base):
    tower = start(make_tower(backbone_folder(base), precision="bf16", **settings))
    assert {p.dtype for p in tower.trained_parameters().values()} == {torch.float32}
    train(tower)


def test_auto_precision_is_checked_again_once_it_is_known(models, monkeypatch):
    from lora_rec.towers.precision import Precision

    monkeypatch.setattr(
        "lora_rec.towers.backbone.resolve_precision", lambda *a, **k: Precision("4bit", "fp32")
    )
    with pytest.raises(RecipeError, match="item_tower.lora_start: 'pissa' decomposes full weights"):
        make_tower(models["llama"], precision="auto", lora_start="pissa")


def test_lora_plus_lets_b_move_faster(models):
    tower = make_tower(models["bert"], lora_plus_ratio=16.0)
    factors = {
        name.split(".lora_")[1][0]: tower.adapter.learning_rate_factor(name)
        for name in tower.trained_parameters()
    }
    assert factors == {"A": 1.0, "B": 16.0}


def test_eva_takes_the_leading_directions_of_the_inputs(models):
    tower = start(make_tower(models["llama"], lora_start="eva", lora_rank=4))
    inputs = {}
    name, layer = next(
        (n, m) for n, m in tower.model.named_modules() if n.endswith("layers.1.self_attn.q_proj")
    )
    layer.register_forward_pre_hook(lambda module, args: inputs.update(x=args[0]))
    batch = batch_of(tower)
    with torch.no_grad():
        tower.encode_states(batch)
    real = inputs["x"][batch.attention_mask.bool()]
    directions = torch.linalg.svd(real, full_matrices=False)[2]
    first = layer.lora_A["default"].weight[0]
    assert abs(float(first @ directions[0])) > 0.999
    ranks = [m.weight.shape[0] for n, m in tower.model.named_modules() if n.endswith("lora_A.default")]
    assert sum(ranks) == 4 * len(ranks)
    assert all(rank >= 1 for rank in ranks)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"adapter": "ia3", "lora_rank": 8},
            "lora_rank: adapter 'ia3' does not have this setting; leave it out",
        ),
        ({"adapter": "adalora", "init_rank": 8, "target_rank": 8}, "target_rank: 8 is not below init_rank 8"),
        ({"adapter": "full", "precision": "bf16"}, "adapter 'full' trains the model's own weights; use fp32"),
        ({"lora_start": "loftq"}, "'loftq' makes up for the error of 4 bit, but precision is 'fp32'"),
        (
            {"lora_start": "pissa", "precision": "4bit"},
            "'pissa' decomposes full weights.*use loftq with 4bit",
        ),
        ({"lora_start": "pissa", "dora": True}, "dora: has its own start, which 'pissa' would overwrite"),
        ({"lora_rank": 5000}, "lora_rank: 5000 is not in 1..1024"),
        ({"adapter": "loha", "precision": "4bit"}, "precision: '4bit' is not known to peft's LoHa; use 8bit"),
        ({"dora": True, "precision": "8bit"}, "dora: reads the weights anew in every step.*use 4bit or bf16"),
        ({"compute": "bf16"}, "compute: has no effect with precision 'fp32'; leave it out"),
        (
            {"adapter": "adalora", "allocation_begin": 0.7},
            "allocation_begin: 0.7 and allocation_end 0.5 must rise",
        ),
    ],
)
def test_settings_without_sense_are_refused(settings, text):
    with pytest.raises(RecipeError, match=text):
        TowerSection(**settings)


def test_all_problems_come_at_once():
    with pytest.raises(RecipeError) as error:
        TowerSection(adapter="prefix", lora_rank=4, n_virtual_tokens=0, max_tokens=1)
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == [
        "max_tokens",
        "lora_rank",
        "n_virtual_tokens",
    ]


@pytest.mark.parametrize("base", ["modernbert", "deberta-v2", "albert"])
def test_a_prefix_needs_a_model_that_takes_one(backbone_folder, base):
    with pytest.raises(TowerError, match=f"'prefix' does not work with {base}.*use lora or bottleneck"):
        make_tower(backbone_folder(base), adapter="prefix")


def test_oft_names_a_block_size_that_fits(models):
    with pytest.raises(TowerError, match="oft_block_size: 24 does not divide the width 32.*e.g. 16"):
        make_tower(models["llama"], adapter="oft", oft_block_size=24)


def test_half_precision_weights_are_not_trained(models):
    with pytest.raises(TowerError, match="'layernorm' would train .* in half precision.*precision=fp32"):
        from lora_rec.adapter_settings import AdapterSettings
        from lora_rec.towers.adapters import attach
        from lora_rec.towers.backbone import load_backbone

        model = load_backbone(str(models["llama"]), precision="bf16").model
        attach(model, AdapterSettings("layernorm", {}), trained_layers=1, where="item_tower")


def saved_lora(folder, **config):
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query"]} | config
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def settings_of_saved(folder, base_model_id="bert"):
    settings = {"lora_plus_ratio": None, "precision": "fp32", "where": "user_tower"}
    return read_lora_settings(folder, base_model_id=base_model_id, **settings)


@pytest.mark.parametrize("start", ["pissa_niter_4", "olora", "loftq"])
def test_a_start_that_changed_its_base_is_refused(tmp_path, start):
    folder = saved_lora(tmp_path / "saved", init_lora_weights=start)
    with pytest.raises(TowerError, match=f"was started by '{start}' and fits a base without .* a plain LoRA"):
        settings_of_saved(folder)
    save_file({"a": torch.zeros(1)}, str(folder / "adapter_model.safetensors"))
    with pytest.raises(BundleError, match=f"says '{start}', a start that changes the base"):
        check_adapter(folder, "lora", where="user_tower")


def test_a_base_that_was_a_folder_is_known_by_its_last_part(tmp_path):
    folder = saved_lora(tmp_path / "saved", base_model_name_or_path="models/bert")
    assert settings_of_saved(folder)["lora_rank"] == 4
    for other in ("roberta", "models/roberta"):
        with pytest.raises(TowerError, match="was trained on models/bert, the tower's backbone is"):
            settings_of_saved(folder, base_model_id=other)


@pytest.mark.parametrize("start", ["pissa", "olora", "loftq"])
def test_a_start_from_weights_needs_as_many_directions_as_its_rank(models, start):
    settings = {"precision": "4bit"} if start == "loftq" else {}
    with pytest.raises(
        TowerError, match=rf"lora_rank: 64, and .* directions that '{start}' could start from"
    ):
        make_tower(models["llama"], lora_start=start, lora_rank=64, **settings)


def test_whole_paths_are_targets(models):
    whole = make_tower(models["bert"], target_modules=["encoder.layer.2.attention.self.query"])
    names = [n for n in whole.trained_parameters() if ".lora_A." in n]
    assert len(names) == 1
    assert "layer.2.attention.self.query" in names[0]


@pytest.mark.parametrize("layers", [2, 3, None])
def test_full_trains_the_layers_and_nothing_around_them(models, layers):
    tower = make_tower(models["llama"], adapter="full", trained_layers=layers)
    assert all("layers." in name for name in tower.trained_parameters())


def test_the_halves_run_an_adapter_that_came_later(backbone_folder, tmp_path):
    folder = backbone_folder("electra")
    torch.manual_seed(3)
    targets = ["query", "embeddings_project"]
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    plain = get_peft_model(AutoModel.from_pretrained(folder), config)
    plain.save_pretrained(tmp_path / "plain")
    alone = make_tower(folder, start_from=str(tmp_path / "plain"), trained_layers=None)
    save_adapter(alone.adapter, tmp_path / "own", base_model_id="tiny", revision=None)
    tower = make_tower(folder, trained_layers=1)
    add_adapter(tower.model, tmp_path / "own", "other", where="x")
    use_adapter(tower.model, "other")
    assert np.abs(states_of(tower) - states_of(alone)).max() > 1e-2  # the adapter below the layers is not run
    tower.split()
    np.testing.assert_allclose(states_of(tower), states_of(alone), atol=1e-5)
