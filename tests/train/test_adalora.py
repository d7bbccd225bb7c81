"""Rank allocation: right by construction, because the loop runs it."""

import copy
import logging

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from test_loop import train as train_recipe
from tiny import EVERY, batch_of, every_epoch_is_the_best, make_tower, reload, states_of

from lora_rec.errors import TrainingError
from lora_rec.train.adalora import Allocations, RankAllocation, Schedule, build_allocations, format_ranks

pytestmark = pytest.mark.usefixtures("device")

SETTINGS = {"adapter": "adalora", "init_rank": 6, "target_rank": 2}


@pytest.fixture
def accelerator(device):
    return Accelerator(cpu=device == "cpu")


class Run:
    """A tower in training, step by step, with everything that a step changes."""

    def __init__(self, models, accelerator, *, n_steps=20, **settings):
        self.tower = make_tower(models["llama"], **(SETTINGS | settings))
        self.trained = self.tower.trained_parameters()
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=0.02)
        self.allocation = RankAllocation(self.tower, n_steps=n_steps, where="item_tower")
        self.accelerator, self.step = accelerator, 0
        self.batch = batch_of(self.tower)

    def go(self, n):
        for _ in range(n):
            self.step += 1
            target = torch.randn(len(EVERY), 8, generator=torch.Generator().manual_seed(self.step))
            target = torch.nn.functional.normalize(target, dim=1).to(self.tower.device)
            (1 - (self.tower(self.batch) * target).sum(dim=1)).mean().backward()
            Allocations({"item_tower": self.allocation}).add_penalty(self.accelerator)
            self.optimizer.step()
            self.allocation.after_step(self.step, self.accelerator)
            self.optimizer.zero_grad()
        return self

    def total(self):
        return sum(self.allocation.ranks().values())


def test_the_schedule_follows_the_length_of_the_run():
    assert Schedule.of(200, begin=0.1, end=0.5, interval=2, where="x") == Schedule(200, 20, 100, 2)
    with pytest.raises(TrainingError, match=r"item_tower: 2 steps are too few .* raise train.epochs"):
        Schedule.of(2, begin=0.1, end=0.2, interval=1, where="item_tower")


def test_ranks_fall_from_the_first_budget_to_the_last(models, accelerator):
    run = Run(models, accelerator)
    n_modules = len(run.allocation.ranks())
    totals = [run.go(1).total() for _ in range(20)]
    assert totals[:2] == [6 * n_modules] * 2  # allocation_begin is a tenth of 20 steps
    assert all(later <= earlier for earlier, later in zip(totals[2:9], totals[3:10], strict=True))
    assert totals[9:] == [2 * n_modules] * 11  # final at half of the steps, and for good
    assert run.allocation.is_final
    # What allocation took stays zero, although the optimizer goes on.
    values = {n: p for n, p in run.tower.model.named_parameters() if n.endswith("lora_E.default")}
    assert sum(int((p != 0).sum()) for p in values.values()) == 2 * n_modules


def test_a_run_that_ends_early_still_comes_down_to_its_budget(models, accelerator):
    run = Run(models, accelerator).go(5)
    assert run.total() > run.allocation.budget
    assert run.allocation.finish(run.step, accelerator)
    assert run.total() == run.allocation.budget
    assert not run.allocation.finish(run.step, accelerator)


def test_the_penalty_is_zero_at_the_start_and_pulls_back_what_leaves(models, accelerator):
    run = Run(models, accelerator, orthogonality_weight=1.0)
    Allocations({"item_tower": run.allocation}).add_penalty(accelerator)
    assert float(run.allocation.penalty()) < 1e-5
    # An unsquared norm would give a gradient of full size here, in a random direction.
    assert all(p.grad is None or p.grad.abs().max() < 1e-5 for p in run.trained.values())
    run.optimizer.zero_grad()
    for name, parameter in run.trained.items():
        if ".lora_E." not in name:
            torch.nn.init.normal_(parameter.data)
    assert float(run.allocation.penalty()) > 1
    Allocations({"item_tower": run.allocation}).add_penalty(accelerator)
    assert all(p.grad.any() for n, p in run.trained.items() if ".lora_E." not in n)


def test_singular_values_move_as_far_as_the_vectors(models):
    tower = make_tower(models["llama"], **SETTINGS)
    factors = {
        n.split(".lora_")[1][0]: tower.adapter.learning_rate_factor(n) for n in tower.trained_parameters()
    }
    assert factors == {"A": 1.0, "B": 1.0, "E": 32**0.5}


def test_a_resumed_run_is_bit_identical(models, accelerator):
    whole = Run(models, accelerator).go(20)
    first = Run(models, accelerator).go(6)
    kept = copy.deepcopy(
        (
            {n: p.detach() for n, p in first.trained.items()},
            first.optimizer.state_dict(),
            first.allocation.state_dict(),
        )
    )
    second = Run(models, accelerator)
    for name, parameter in second.trained.items():
        parameter.data.copy_(kept[0][name])
    second.optimizer.load_state_dict(kept[1])
    second.allocation.load_state_dict(kept[2])
    second.step = 6
    second.go(14)
    assert all(torch.equal(p, whole.trained[n]) for n, p in second.trained.items())
    assert second.allocation.ranks() == whole.allocation.ranks()
    assert second.allocation.ranks_over_time == whole.allocation.ranks_over_time
    # Without the importances, which no state dict of peft holds, the resumed run would differ.
    third = Run(models, accelerator)
    for name, parameter in third.trained.items():
        parameter.data.copy_(kept[0][name])
    third.optimizer.load_state_dict(kept[1])
    third.step = 6
    third.go(14)
    assert not all(torch.equal(p, whole.trained[n]) for n, p in third.trained.items())


@pytest.mark.parametrize("base", ["bert", "llama", "gpt2"])
@pytest.mark.parametrize("precision", ["fp32", "4bit"])
def test_the_plain_lora_of_the_final_ranks_gives_the_same_vectors(
    models, accelerator, tmp_path, base, precision
):
    settings = {"precision": precision} | ({"compute": "fp32"} if precision == "4bit" else {})
    run = Run({"llama": models[base]}, accelerator, **settings).go(20)
    plain = reload(run.tower, models[base], tmp_path / "adapter", **settings)
    assert '"peft_type": "LORA"' in (tmp_path / "adapter" / "adapter_config.json").read_text()
    np.testing.assert_allclose(states_of(plain), states_of(run.tower), atol=1e-5)
    kept = {n: m.weight.shape[0] for n, m in plain.model.named_modules() if n.endswith("lora_A.default")}
    expected = {n: r for n, r in run.allocation.ranks().items() if r}
    assert {
        n.removeprefix("base_model.model.").removesuffix(".lora_A.default"): r for n, r in kept.items()
    } == expected


def test_other_adapters_have_no_allocation(models):
    from lora_rec.towers.two_tower import TwoTower

    towers = TwoTower(make_tower(models["bert"]), make_tower(models["llama"], **SETTINGS))
    assert list(build_allocations(towers.towers, n_steps=20).towers) == ["item_tower"]


def test_the_loop_allocates_logs_the_table_and_keeps_the_budget(recipe_tree, caplog):
    tree = recipe_tree | {"item_tower": recipe_tree["item_tower"] | SETTINGS}
    with caplog.at_level(logging.INFO, logger="lora_rec"):
        with every_epoch_is_the_best():
            model, result, _ = train_recipe(tree, epochs=4, patience=4)
    steps = result.ranks["item_tower"]
    assert [sum(ranks.values()) for _, ranks in steps][-1] == 2 * len(steps[-1][1])
    assert "item_tower: ranks kept\nlayer  q_proj  v_proj\n" in caplog.text
    values = [p for n, p in model.item_tower.model.named_parameters() if n.endswith("lora_E.default")]
    assert sum(int((p != 0).sum()) for p in values) == 4


def test_a_loop_that_stops_early_allocates_before_it_ends(recipe_tree, monkeypatch):
    import lora_rec.pipeline.towers as wiring

    original = wiring.train_two_tower
    monkeypatch.setattr(
        wiring, "train_two_tower", lambda *a, **k: original(*a, **(k | {"validate": lambda: -1.0}))
    )
    late = {"allocation_begin": 0.5, "allocation_end": 0.9}
    tree = recipe_tree | {"item_tower": recipe_tree["item_tower"] | SETTINGS | late}
    _, result, _ = train_recipe(tree, epochs=10, patience=1)
    assert len(result.epochs) == 1
    (_, first), *_, (_, ranks) = result.ranks["item_tower"]
    assert sum(first.values()) == 6 * len(first)
    assert sum(ranks.values()) == 2 * len(ranks)


def test_the_table_has_a_line_for_each_layer():
    ranks = {"encoder.layer.4.attention.self.query": 12, "encoder.layer.4.attention.self.value": 3}
    assert format_ranks(ranks).splitlines() == ["layer  query  value", "    4     12      3"]


def test_the_picture_is_a_png_with_a_cell_for_each_module():
    from lora_rec.pipeline.pictures import draw_ranks
    from lora_rec.train.adalora import rank_grid

    ranks = {"layers.1.q_proj": 4, "layers.1.v_proj": 0, "layers.2.q_proj": 2}
    layers, modules, grid = rank_grid(ranks)
    assert (layers, modules) == ([1, 2], ["q_proj", "v_proj"])
    assert np.array_equal(grid, [[4, 0], [2, np.nan]], equal_nan=True)
    picture = draw_ranks("item_tower", [(1, {name: 4 for name in ranks}), (5, ranks)])
    assert picture.startswith(b"\x89PNG")


def test_a_module_that_loses_all_its_ranks_at_once_is_no_false_alarm(recipe_tree):
    cut = {"adapter": "adalora", "init_rank": 2, "target_rank": 1, "allocation_begin": 0.0}
    tree = recipe_tree | {"item_tower": recipe_tree["item_tower"] | cut | {"allocation_end": 0.3}}
    for seed in range(3):
        _, result, _ = train_recipe(tree, epochs=2, patience=2, seed=seed)
        assert len(result.epochs) == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16", "4bit"])
def test_rank_counters_are_not_learned(models, precision):
    tower = make_tower(models["llama"], adapter="adalora", precision=precision)
    assert all(".lora_" in name for name in tower.trained_parameters())
