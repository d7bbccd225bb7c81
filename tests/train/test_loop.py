import hashlib
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file

from lora_rec.config import build_config
from lora_rec.errors import TrainingError
from lora_rec.pipeline.checkpoints import open_checkpoints
from lora_rec.pipeline.data import prepare_data, prepare_texts
from lora_rec.pipeline.objectives import prepare_material
from lora_rec.pipeline.ranking import choose_linear, fit_linear
from lora_rec.pipeline.sources import open_sources
from lora_rec.pipeline.towers import build_towers, solve_and_encode, teach, train_towers
from lora_rec.recipe import Recipe
from lora_rec.train.learning_check import LearningCheck
from lora_rec.train.sharding import shard_frozen_layers


def train(tree, *, keep=False, **settings):
    """Runs the stages up to the trained towers; with `keep` there are checkpoints beside the output."""
    recipe = build_config(Recipe, tree | {"train": tree["train"] | settings})
    return train_recipe(recipe, keep=keep)


def hashes(model):
    return {
        name: hashlib.sha256(p.view(torch.uint8).numpy().tobytes()).hexdigest() for name, p in frozen(model)
    }


def train_recipe(recipe, *, keep=False):
    accelerator = Accelerator(cpu=True)
    set_seed(0)
    dataset, split = prepare_data(recipe.data)
    examples, texts = prepare_texts(recipe, dataset, split)
    linear = fit_linear(split.train_histories(), choose_linear(split), n_items=split.n_items)
    teacher = teach(recipe, linear, examples)
    known = split.train_histories()
    material = prepare_material(recipe, dataset, examples, texts, teacher, known=known, log=split.train_log)
    model = build_towers(recipe, device=accelerator.device)
    shard_frozen_layers(model, accelerator)
    sources = open_sources(recipe, model, texts, accelerator)
    start = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)
    before = hashes(model)
    judged = [split.validation.targets.values]
    kept = open_checkpoints(recipe, model, texts, material, accelerator, judged=judged) if keep else None
    result = train_towers(recipe, model, sources, texts, material, dataset, split, start, accelerator, kept)
    return model, result, before


def frozen(model):
    """Frozen tensors by name; of those that processes share, this one's part."""
    found = [(name, p.detach()) for name, p in model.named_parameters() if not p.requires_grad]
    return [(name, tensor.to_local() if hasattr(tensor, "to_local") else tensor) for name, tensor in found]


def adapters(model):
    return {name: p.detach().clone() for name, p in model.trained_parameters().items()}


def assert_same(one, other, atol):
    assert one
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=atol, rtol=0, msg=name)


@pytest.fixture
def last_state(monkeypatch):
    """Keeps the state after the last step checked, not the best one: comparing starts would prove nothing."""
    kept = {}
    original = LearningCheck.after_step

    def keep(self, step, *, last=False):
        original(self, step, last=last)
        kept.update({name: p.detach().clone() for name, p in self._trained.items()})

    monkeypatch.setattr(LearningCheck, "after_step", keep)
    return kept


def test_base_weights_are_bit_equal_after_training(recipe_tree):
    model, result, before = train(recipe_tree, epochs=2)
    assert len(result.epochs) >= 1
    assert before
    assert hashes(model) == before


@pytest.mark.parametrize("alignment", [0.0, 0.5])
def test_micro_batched_equals_whole(recipe_tree, last_state, alignment):
    tree = recipe_tree | {"objectives": {"softmax": 1 - alignment, "alignment": alignment}}
    train(tree, token_budget=16)
    small = dict(last_state)
    train(tree, token_budget=100_000)
    assert_same(small, last_state, atol=1e-4)


def test_cached_training_equals_uncached(recipe_tree, last_state):
    train(recipe_tree)
    cached = dict(last_state)
    train(recipe_tree, prefix_cache=False)
    assert_same(cached, last_state, atol=2e-2)  # three steps of Adam on states in half precision


def test_training_lowers_the_loss(recipe_tree):
    tree = recipe_tree | {"objectives": {"softmax": 0, "alignment": 1}}
    _, result, _ = train(tree, epochs=6, patience=6)
    assert result.epochs[-1].loss < 0.9 * result.epochs[0].loss


def check_of(*, rate=0.1, **trained):
    return LearningCheck(trained, torch.optim.AdamW(trained.values(), lr=rate))


def test_an_adapter_that_stands_still_is_an_error():
    parameter = torch.nn.Parameter(torch.ones(2))
    check = check_of(lora_A=parameter)
    for step in (1, 2):
        check.after_step(step)
    parameter.data.mul_(0.99)  # weight decay moves a tensor that has no gradient
    with pytest.raises(
        TrainingError, match="1 of 1 trained tensors did not learn in 3 steps, e.g. lora_A; check"
    ):
        check.after_step(3)


def test_a_run_of_two_steps_is_stopped_only_where_nothing_moved():
    moved, still = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    check = check_of(lora_B=moved, lora_A=still)
    check.after_step(1)
    moved.grad = torch.ones(2)
    moved.data.mul_(0.9)
    check.after_step(2, last=True)  # behind numbers that start at zero an A moves in the third step
    nothing = check_of(lora_A=still)
    nothing.after_step(1)
    with pytest.raises(TrainingError, match="1 of 1 trained tensors did not learn in 2 steps"):
        nothing.after_step(2, last=True)


@pytest.mark.parametrize(
    ("start", "rate", "stops"), [(1.0, 3e-8, False), (1.0, 0.0, True), (0.0, 3e-8, True)]
)
def test_a_step_lost_in_rounding_is_no_standstill(start, rate, stops):
    ones = torch.nn.Parameter(
        torch.full((2,), float(start))
    )  # IA3's, at the first of ten thousand warm-up steps
    check = check_of(ia3_l=ones, rate=rate)
    ones.grad = torch.ones(2)
    with pytest.raises(TrainingError, match="did not learn") if stops else nullcontext():
        check.after_step(3)


def test_a_loss_that_is_no_number_stops_the_run(recipe_tree, monkeypatch):
    import lora_rec.train.objectives.combined as combined

    monkeypatch.setattr(combined, "alignment_loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(TrainingError, match=r"the loss is nan at step 1; lower train.learning_rate \(0.01\)"):
        train(recipe_tree)


SETTINGS = {
    "lora": {},
    "adalora": {"adapter": "adalora", "init_rank": 6, "target_rank": 2},
    "lora-4bit": {"precision": "4bit", "compute": "fp32"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_equal_one(recipe_tree, tmp_path, name):
    script = Path(__file__).parent / "train_in_processes.py"
    towers = {tower: recipe_tree[tower] | SETTINGS[name] for tower in ("user_tower", "item_tower")}
    (tmp_path / "tree.json").write_text(json.dumps(recipe_tree | towers))
    for n in (1, 2):
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={n}",
            str(script),
        ]
        subprocess.run(
            [*command, str(tmp_path / "tree.json"), str(tmp_path / f"{n}.safetensors")], check=True
        )
    one, two = (load_file(str(tmp_path / f"{n}.safetensors")) for n in (1, 2))
    assert int(two.pop("processes")) == 2
    assert int(one.pop("processes")) == 1
    learned = "lora_E" if name == "adalora" else "lora_B"
    moved = [bool(tensor.any()) for tensor_name, tensor in one.items() if f".{learned}." in tensor_name]
    assert any(moved) if name == "adalora" else all(moved)  # AdaLoRA may leave a module no rank at all
    assert len(moved) >= 4
    assert_same(one, two, atol=1e-5)


def test_after_training_nothing_is_dropped(recipe_tree):
    towers = {name: recipe_tree[name] | {"lora_dropout": 0.5} for name in ("user_tower", "item_tower")}
    model, _, _ = train(recipe_tree | towers)
    for tower in model.towers.values():
        assert tower.adapter.dropouts()
        assert not any(module.training for module in tower.adapter.dropouts())
