"""A run that was stopped goes on as if nothing had happened; bits are compared, not near numbers."""

import logging
import os
import signal
from pathlib import Path

import pytest
import torch
from test_loop import SETTINGS, train

import lora_rec.pipeline.towers as wiring
import lora_rec.train.gradients as gradients
from lora_rec.errors import TrainingError
from lora_rec.train.checkpoint import Checkpoint, Checkpoints
from lora_rec.train.epochs import _load_alike
from lora_rec.train.interruption import Interrupted, lost_process
from lora_rec.train.learning_check import LearningCheck
from lora_rec.train.shared import SharedPass
from lora_rec.train.state import Progress


@pytest.fixture
def tree(recipe_tree, tmp_path, monkeypatch):
    """Two epochs, judged by how far the adapters have come, so that the last is the best."""
    original = wiring.train_two_tower

    def judged(model, *arguments, **named):
        start = {name: p.detach().clone() for name, p in model.trained_parameters().items()}
        solve = named["validate"]

        def validate():
            solve()
            moved = [(p - start[n]).abs().sum() for n, p in model.trained_parameters().items()]
            return 1.0 + float(torch.stack(moved).sum().detach())

        return original(model, *arguments, **(named | {"validate": validate}))

    monkeypatch.setattr(wiring, "train_two_tower", judged)
    return recipe_tree | {
        "output": str(tmp_path / "out"),
        "train": recipe_tree["train"] | {"epochs": 2, "patience": 2, "batch_size": 64},
        "checkpoint": {"every_seconds": 0},
    }


def with_adapter(tree, name):
    return tree | {tower: tree[tower] | SETTINGS[name] for tower in ("user_tower", "item_tower")}


def learned(model):
    return {name: tensor.detach().clone() for name, tensor in model.learned_state().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


class Killed(BaseException):
    """Stands for a process that is gone: nothing that it had in memory is used again."""


@pytest.fixture
def killed_at(monkeypatch):
    """Trains until the n-th checkpoint, and dies before or after it is written."""
    original = Checkpoints.save

    def train_until(tree, number, *, written):
        saves = []

        def save(self, checkpoint):
            saves.append(checkpoint.step)
            if written or len(saves) < number:
                original(self, checkpoint)
            if len(saves) == number:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", save)
            with pytest.raises(Killed):
                train(tree, keep=True)
        return saves[-1]

    return train_until


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_runs_end_with_the_same_bits(tree, killed_at, name):
    tree = with_adapter(tree, name)
    model, result, _ = train(tree)
    assert result.best_epoch == 2
    kills = ((1, False), (2, True), (1, True), (2, True), (3, False))
    steps = [killed_at(tree, n, written=w) for n, w in kills]
    assert steps == [1, 2, 3, 4, 5]  # after step 4, the end of an epoch, one before and one after validation
    again, resumed, _ = train(tree, keep=True)
    assert_equal(learned(model), learned(again))
    assert resumed.ranks == result.ranks
    assert [log.loss for log in resumed.epochs] == [log.loss for log in result.epochs]
    assert [log.validation for log in resumed.epochs] == [log.validation for log in result.epochs]


def test_a_run_that_had_trained_does_not_train_again(tree, monkeypatch):
    model, result, _ = train(tree, keep=True)
    monkeypatch.setattr(gradients.Gradients, "__call__", lambda *_: pytest.fail("trains again"))
    again, resumed, _ = train(tree, keep=True)
    assert_equal(learned(model), learned(again))
    assert resumed.best_epoch == result.best_epoch == 2
    assert resumed.epochs == result.epochs


def test_early_stopping_is_remembered(tree, killed_at, monkeypatch):
    """A run that died when its patience had ended trains no further."""
    tree = tree | {"train": tree["train"] | {"epochs": 5, "patience": 1, "batch_size": 1000}}
    original = wiring.train_two_tower
    monkeypatch.setattr(
        wiring,
        "train_two_tower",
        lambda *a, **n: original(*a, **(n | {"start_validation": 99.0})),
    )
    model, result, _ = train(tree)
    assert (result.best_epoch, len(result.epochs)) == (0, 1)
    assert killed_at(tree, 3, written=True) == 1  # the end of the first epoch, after its only step
    monkeypatch.setattr(gradients.Gradients, "__call__", lambda *_: pytest.fail("trains again"))
    again, resumed, _ = train(tree, keep=True)
    assert_equal(learned(model), learned(again))
    assert resumed.best_epoch == 0


def test_sigterm_writes_a_checkpoint_and_the_run_goes_on(tree, monkeypatch):
    tree = tree | {"checkpoint": {"every_seconds": 1e6}}
    model, _, _ = train(tree)
    original = LearningCheck.after_step

    def stop(self, step, *, last=False):
        original(self, step, last=last)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(LearningCheck, "after_step", stop)
        with pytest.raises(Interrupted, match="stopped by SIGTERM after step 2; the same command goes on"):
            train(tree, keep=True)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    seen = []

    def count(self, step, *, last=False):
        seen.append(step)
        original(self, step, last=last)

    monkeypatch.setattr(LearningCheck, "after_step", count)
    again, _, _ = train(tree, keep=True)
    assert seen[0] == 3
    assert_equal(learned(model), learned(again))


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: not enough memory")],
)
def test_out_of_memory_halves_the_micro_batch_and_the_result_stays(tree, monkeypatch, caplog, error):
    model, _, _ = train(tree, token_budget=1024)
    original, budgets = SharedPass.backward, []

    def limited(shared):
        budgets.append(shared._budget)
        if shared._budget > 300:
            raise error
        original(shared)

    monkeypatch.setattr(SharedPass, "backward", limited)
    with caplog.at_level(logging.WARNING, logger="lora_rec"):
        again, _, _ = train(tree, token_budget=1024)
    assert budgets[:4] == [1024, 512, 256, 256]
    assert set(budgets[4:]) == {256}
    assert "out of memory with micro-batches of 512 tokens; going on with 256" in caplog.text
    for name, tensor in learned(model).items():
        torch.testing.assert_close(learned(again)[name], tensor, atol=1e-3, rtol=0, msg=name)


def test_memory_that_never_suffices_is_an_error(tree, monkeypatch):
    def never(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(SharedPass, "backward", never)
    with pytest.raises(TrainingError, match="micro-batches of 16 tokens, which is the least; choose"):
        train(tree, token_budget=64)


def test_other_settings_do_not_go_on(tree, killed_at):
    killed_at(tree, 2, written=True)
    with pytest.raises(TrainingError, match=r"left by another run \(train.learning_rate was 0.01, is 0.02\)"):
        train(tree, keep=True, learning_rate=0.02)
    other_head = tree | {"head": tree["head"] | {"epochs": 0}}
    train(other_head, keep=True)  # which concerns the adapters in nothing


def test_a_smaller_budget_and_no_cache_go_on(tree, killed_at, caplog):
    model, _, _ = train(tree)
    killed_at(tree, 2, written=True)
    with caplog.at_level(logging.INFO, logger="lora_rec"):
        again, _, _ = train(tree, keep=True, token_budget=256, prefix_cache=False)
    assert "step 2" in caplog.text and "going on from" in caplog.text
    for name, tensor in learned(model).items():
        torch.testing.assert_close(learned(again)[name], tensor, atol=2e-2, rtol=0, msg=name)
    progress = Progress(256)
    progress.take(Progress(4096, step=3).to_json())
    assert (progress.token_budget, progress.step) == (256, 3)


def test_another_teacher_and_other_judges_do_not_go_on(tree, killed_at, tmp_path):
    log = Path(tree["data"]["interactions"])
    rows = log.read_text().splitlines()
    again = tmp_path / "again.csv"
    again.write_text("\n".join([rows[0] + ",plays"] + [f"{r},{1 + n % 7}" for n, r in enumerate(rows[1:])]))
    plain = tree | {"data": tree["data"] | {"interactions": str(again)}}
    killed_at(plain, 2, written=True)
    counted = plain["data"] | {"rating_column": "plays", "ratings_are": "counts"}
    with pytest.raises(TrainingError, match=r"left by another run \(data was"):
        train(plain | {"data": counted}, keep=True)


class Machines:
    """Two machines, of which the second found another step."""

    device = "cpu"

    def __init__(self, other):
        self.other = other

    def gather(self, step):
        return torch.cat([step, torch.tensor([self.other])])


def test_machines_that_found_different_checkpoints_do_not_go_on(tmp_path):
    kept = Checkpoints(tmp_path / "kept", run={})
    assert _load_alike(kept, Machines(-1)) is None
    kept.save(Checkpoint(7, {}, {}))
    assert _load_alike(kept, Machines(7)).step == 7
    with pytest.raises(TrainingError, match=r"found different checkpoints there \(step 7, none\); give"):
        _load_alike(kept, Machines(-1))


class Processes:
    num_processes = 2


@pytest.mark.parametrize("text", ["[gloo] Connection closed by peer [::1]", "Timed out waiting 30000ms"])
def test_a_lost_process_is_named(text):
    with pytest.raises(TrainingError, match=r"another process of the run is gone \(after step 7\); look"):
        with lost_process(Processes(), Progress(16, step=7)):
            raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="something else"), lost_process(Processes(), Progress(16)):
        raise RuntimeError("something else")
