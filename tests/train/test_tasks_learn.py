"""Every task without labels: it learns what is obvious, in every precision, with AdaLoRA, resumed, shared."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_tasks import (
    DECODER,
    ENCODER,
    SETTINGS,
    TASKS,
    assert_equal,
    learned,
    learner_of,
    pretrain,
    recipe_of,
    write_shop,
)

import lora_rec.pipeline.pretrain as wiring
from lora_rec.errors import TrainingError
from lora_rec.train.checkpoint import Checkpoints
from lora_rec.train.epochs import TrainingResult

TOGETHER = {"encoder": ENCODER, "decoder": DECODER}
EACH = {name: [name] for name in TASKS}


@pytest.fixture
def shop(tmp_path, models):
    return write_shop(tmp_path, models)


REACHED = {
    "mlm": ("perplexity", 12),  # how often each of the 46 words stands there gives about 20
    "clm": ("perplexity", 15),
    "nsp": ("accuracy", 0.7),
    "category": ("accuracy", 0.99),
    "entities": ("f1", 0.9),
    "history_views": ("retrieval@1", 0.6),  # of 12
    "item_views": ("retrieval@1", 0.7),  # of 8
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_learns_an_obvious_shop(shop, models, name):
    epochs = 16 if name == "nsp" else 8  # half of its strangers are of the same kind as a neighbour
    model, result = pretrain(recipe_of(shop, [name], models=models, epochs=epochs, patience=epochs))
    before, after = result.before[name], result.after[name]
    measure, reached = REACHED[name]
    assert result.tasks[0].measure == measure
    assert result.training.best_epoch > 0
    assert after.loss < 0.9 * before.loss
    assert after.measure <= reached if measure == "perplexity" else after.measure >= reached
    moved = [p for n, p in model.tower.trained_parameters().items() if ".lora_B." in n]
    assert moved
    assert all(p.any() for p in moved)


def assert_learned(model, result):
    """The adapter moved and stayed within its budget, and every loss that was held out fell or stood."""
    assert result.training.best_epoch > 0
    names = [name for name in learned(model) if ".lora_" in name and name.startswith("tower.")]
    assert names
    before, after = (sum(v.loss for v in found.values()) for found in (result.before, result.after))
    assert after < before
    for tasks in result.training.ranks.values():
        assert sum(tasks[-1][1].values()) <= 2 * len(tasks[-1][1])


def check_setting(shop, models, tasks, setting, **train):
    recipe = recipe_of(shop, tasks, models=models, tower=SETTINGS[setting], **train)
    model, result = pretrain(recipe)
    assert_learned(model, result)
    assert bool(result.training.ranks) == (setting == "adalora")


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        *(("encoder", name) for name in SETTINGS if name != "lora"),
        ("decoder", "4bit"),
        ("decoder", "adalora"),
    ],
)
def test_all_tasks_together_in_every_setting(shop, models, kind, setting):
    check_setting(shop, models, TOGETHER[kind], setting, batch_size=64, epochs=3)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("tasks", EACH.values(), ids=EACH)
def test_a_task_alone_in_every_setting(shop, models, tasks, setting):
    check_setting(shop, models, tasks, setting, epochs=12, patience=12)


class Killed(BaseException):
    """Stands for a process that is gone: nothing that it had in memory is used again."""


def check_resume(shop, models, monkeypatch, tasks, setting, kills):
    """Dies at checkpoints, before or after they are written; ends with the bits of a run that did not."""
    recipe = recipe_of(
        shop | {"checkpoint": {"every_seconds": 0}},
        tasks,
        models=models,
        tower=SETTINGS[setting],
        batch_size=64,
    )
    model, result = pretrain(recipe)
    original = Checkpoints.save
    for number, written in kills:
        saves = []

        def save(self, checkpoint, number=number, written=written, saves=saves):
            saves.append(checkpoint.step)
            if written or len(saves) < number:
                original(self, checkpoint)
            if len(saves) == number:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", save)
            with pytest.raises(Killed):
                pretrain(recipe, keep=True)
    again, resumed = pretrain(recipe, keep=True)
    assert_equal(learned(model), learned(again))
    assert resumed.after == result.after
    assert resumed.training.ranks == result.training.ranks
    assert [log.loss for log in resumed.training.epochs] == [log.loss for log in result.training.epochs]


@pytest.mark.parametrize(("kind", "setting"), [("encoder", "adalora"), ("decoder", "lora")])
def test_killed_runs_end_with_the_same_bits(shop, models, monkeypatch, kind, setting):
    """The fourth checkpoint is in the middle of the second epoch."""
    check_resume(shop, models, monkeypatch, TOGETHER[kind], setting, [(4, True)])


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("tasks", EACH.values(), ids=EACH)
def test_killed_runs_of_one_task_end_with_the_same_bits(shop, models, monkeypatch, tasks, setting):
    check_resume(shop, models, monkeypatch, tasks, setting, [(1, False), (2, True)])


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["lora", "adalora", "4bit"])
@pytest.mark.parametrize("tasks", [*TOGETHER.values(), *EACH.values()], ids=[*TOGETHER, *EACH])
def test_two_processes_equal_one(shop, models, tmp_path, tasks, setting):
    recipe = recipe_of(shop, tasks, models=models, tower=SETTINGS[setting])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    script = Path(__file__).parent / "pretrain_in_processes.py"
    for n in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"]
        place = tmp_path / f"{n}.safetensors"
        subprocess.run([*command, str(script), str(tmp_path / "recipe.yaml"), str(place)], check=True)
    one, two = (load_file(str(tmp_path / f"{n}.safetensors")) for n in (1, 2))
    assert (int(one.pop("processes")), int(two.pop("processes"))) == (1, 2)
    first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2))
    for name in tasks:
        assert first[name] == pytest.approx(second[name], abs=1e-4)
    moved = [tensor.any() for name, tensor in one.items() if ".lora_B." in name]
    assert moved
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], atol=2e-4, rtol=0, msg=name)


def test_a_run_without_gain_writes_nothing(shop, models):
    recipe = recipe_of(shop, ["category"], models=models)
    model, tasks, objective = learner_of(recipe)
    found = objective.validate()
    nothing = wiring.Pretrained(model.tower, tasks, found, found, TrainingResult(0.0, 0.0, 0, ()))
    with pytest.raises(TrainingError, match="no epoch lowered the held-out loss"):
        wiring.write_result(recipe, None, nothing, cost={})
    assert not Path(recipe.output).exists()
