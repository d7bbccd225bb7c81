"""Weights in full, half, 8 and 4 bit: the traps of each, pinned."""

import logging

import numpy as np
import pytest
import torch
from tiny import batch_of, make_tower, reload, states_of, train

from lora_rec.errors import LoraRecError
from lora_rec.towers.backbone import load_backbone
from lora_rec.towers.layout import linear_modules
from lora_rec.towers.precision import Precision, dequantise, full_weight, n_weights, resolve_precision
from lora_rec.towers.source import weight_bytes

pytestmark = pytest.mark.usefixtures("device")

PRECISIONS = ("fp32", "bf16", "8bit", "4bit")
BASES = ("bert", "llama", "gpt2")


def gradients(tower):
    batch = batch_of(tower)
    tower.train()
    tower(batch).square()[:, :3].sum().backward()
    found = {n: None if p.grad is None else p.grad.clone() for n, p in tower.trained_parameters().items()}
    for parameter in tower.trained_parameters().values():
        parameter.grad = None
    return found


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_evaluating_in_the_middle_changes_no_later_gradient(models, precision, base):
    tower, other = (make_tower(models[base], precision=precision) for _ in range(2))
    for one in (tower, other):
        train(one, n_steps=2)
    states_of(tower)  # under no_grad: where bitsandbytes would repack 4-bit weights in place
    with_evaluation, without = gradients(tower), gradients(other)
    assert with_evaluation
    for name, gradient in without.items():
        assert gradient is not None
        assert gradient.any()
        torch.testing.assert_close(with_evaluation[name], gradient, atol=0, rtol=0)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("precision", ["8bit", "4bit"])
@pytest.mark.parametrize(
    "adapter", ["lora", "adalora", "ia3", "vera", "oft", "bottleneck", "prefix", "layernorm"]
)
def test_adapters_learn_on_quantised_weights_and_survive_the_disk(models, tmp_path, precision, base, adapter):
    settings = {"precision": precision, "compute": "fp32", "adapter": adapter}
    settings |= {"oft_block_size": 8} if adapter == "oft" else {}
    tower = make_tower(models[base], **settings)
    start = states_of(tower)
    train(tower)
    learned = states_of(tower)
    assert np.abs(learned - start).max() > 1e-3
    again = reload(tower, models[base], tmp_path / "adapter", precision=precision, compute="fp32")
    np.testing.assert_allclose(states_of(again), learned, atol=1e-3 if precision == "8bit" else 2e-5)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(
    ("precision", "settings"),
    [
        ("bf16", {"adapter": "ia3"}),
        ("8bit", {"adapter": "adalora", "init_rank": 4, "target_rank": 2}),
        ("8bit", {"adapter": "ia3"}),
        ("8bit", {"adapter": "loha", "lora_rank": 4}),
        ("4bit", {"adapter": "ia3"}),
        ("4bit", {"dora": True}),
        ("4bit", {"adapter": "oft", "oft_block_size": 8}),
    ],
)
def test_adapters_learn_where_the_model_computes_in_half_precision(
    models, tmp_path, precision, settings, base
):
    compute = {} if precision == "bf16" else {"compute": "bf16"}
    tower = make_tower(models[base], precision=precision, **compute, **settings)
    start = states_of(tower)
    train(tower)
    assert np.abs(states_of(tower) - start).max() > 1e-3
    again = reload(tower, models[base], tmp_path / "adapter", precision=precision, **compute)
    np.testing.assert_allclose(states_of(again), states_of(tower), atol=0.05)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("adapter", ["lora", "adalora", "ia3", "vera", "bottleneck", "prefix"])
def test_adapters_learn_where_products_alone_are_in_half_precision(models, tmp_path, adapter, base):
    precision = {"precision": "bf16", "compute": "fp32"}
    tower = make_tower(models[base], adapter=adapter, **precision)
    assert tower.backbone_info.precision.key == "bf16-fp32"
    start = states_of(tower)
    train(tower)
    assert np.abs(states_of(tower) - start).max() > 1e-3
    again = reload(tower, models[base], tmp_path / "adapter", **precision)
    np.testing.assert_allclose(states_of(again), states_of(tower), atol=2e-5)


@pytest.mark.parametrize("base", BASES)
def test_states_in_full_precision_come_nearer_to_it(models, base):
    def states(**precision):
        tower = make_tower(models[base], adapter="none", trained_layers=1, **precision)
        found = states_of(tower)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    full = states()
    half, products = (states(precision="bf16", compute=c) for c in (None, "fp32"))
    lost = [1 - (full * other).sum(axis=1).min() for other in (half, products)]
    assert 1e-7 < lost[1] < lost[0]


@pytest.mark.parametrize("base", BASES)
def test_products_are_in_half_precision_and_the_rest_is_not(models, base):
    backbone = load_backbone(str(models[base]), precision="bf16", compute="fp32")
    linear = {f"{name}.weight" for name in linear_modules(backbone.model)}
    for name, parameter in backbone.model.named_parameters():
        half = name.rpartition(".")[0] in {path.rpartition(".")[0] for path in linear}
        assert parameter.dtype == (torch.bfloat16 if half else torch.float32), name


@pytest.mark.parametrize("base", BASES)
def test_dequantised_weights_give_what_4_bit_gives(models, base):
    tower = make_tower(models[base], precision="4bit", compute="fp32", adapter="none")
    model = tower.backbone_info.model
    quantised = states_of(tower)
    plain = states_of(make_tower(models[base], adapter="none"))
    dequantise(model)
    assert not hasattr(model.config, "quantization_config")
    assert all(type(m).__module__.split(".")[0] != "bitsandbytes" for m in model.modules())
    np.testing.assert_allclose(states_of(tower), quantised, atol=1e-5)
    assert np.abs(plain - quantised).max() > 1e-3  # so the comparison above can fail


def test_loftq_comes_nearer_to_the_full_weights(models):
    full = make_tower(models["llama"], adapter="none", trained_layers=None)
    names = {"trained_layers": None, "precision": "4bit", "compute": "fp32"}
    every = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    plain = make_tower(models["llama"], **names, target_modules=every, lora_rank=16)
    mended = make_tower(models["llama"], **names, target_modules=every, lora_rank=16, lora_start="loftq")
    distance = [np.linalg.norm(states_of(t) - states_of(full)) for t in (plain, mended)]
    assert distance[1] < 0.7 * distance[0]
    assert mended.adapter.starts_elsewhere


def test_a_4_bit_module_counts_the_weights_that_it_stands_for(models):
    model = load_backbone(str(models["llama"]), precision="4bit").model
    plain = load_backbone(str(models["llama"])).model
    assert sum(map(n_weights, model.parameters())) == sum(p.numel() for p in plain.parameters())
    module = model.get_submodule("layers.0.self_attn.q_proj")
    assert full_weight(module).shape == plain.get_submodule("layers.0.self_attn.q_proj").weight.shape


def test_auto_picks_by_device_and_says_why(models, caplog):
    with caplog.at_level(logging.INFO, logger="lora_rec"):
        chosen = resolve_precision("auto", None, n_bytes=100, device=torch.device("cpu"))
    fast = torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16")
    assert chosen == (Precision("bf16", "fp32") if fast else Precision("fp32", "fp32"))
    assert f"precision auto: {chosen.name} (this processor" in caplog.text
    assert load_backbone(str(models["bert"]), precision="auto", device="cpu").precision == chosen


@pytest.mark.parametrize("abilities", [{"avx2": True}, {"avx512_bf16": True}])
def test_half_precision_on_a_processor_without_it_warns(monkeypatch, caplog, abilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    assert resolve_precision("bf16", None, n_bytes=1, device=torch.device("cpu")).name == "bf16"
    warned = "so fp32 is several times faster; auto takes that" in caplog.text
    assert warned == ("avx512_bf16" not in abilities)


def test_the_size_of_the_weights_is_read_without_the_weights(models):
    parameters = load_backbone(str(models["bert"])).model.state_dict().values()
    n_bytes = 4 * sum(p.numel() for p in parameters)
    assert n_bytes <= weight_bytes(models["bert"]) < 1.2 * n_bytes  # the file has the pooler too


def test_bitsandbytes_keeps_quiet_about_what_asks_for_nothing(models, caplog):
    with caplog.at_level(logging.WARNING):
        states_of(make_tower(models["bert"], precision="8bit"))
    assert "inputs will be cast" not in caplog.text
    logging.getLogger("bitsandbytes.autograd._functions").warning("something else")
    assert "something else" in caplog.text


def test_without_bitsandbytes(models, monkeypatch):
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda n: None if n == "bitsandbytes" else real(n))
    with pytest.raises(
        LoraRecError, match=r"bitsandbytes: not installed; run: pip install 'lora-rec\[train\]'"
    ):
        load_backbone(str(models["bert"]), precision="4bit")
