"""Every objective, alone and together: it learns, in every precision, after a stop, and in two processes."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from objective_runs import SECTIONS, run, tree_of, write_rated
from safetensors.torch import load_file
from test_resume import Killed

import lora_rec.pipeline.towers as wiring
from lora_rec.config import build_config
from lora_rec.errors import DataError, RecipeError
from lora_rec.objectives_section import OBJECTIVES
from lora_rec.recipe import Recipe
from lora_rec.train.checkpoint import Checkpoints
from lora_rec.train.objectives import Objectives
from lora_rec.train.objectives.batch import draw_batch

HARD = {"label_smoothing": 0.1, "word_dropout": 0.3, "word_variants": 2, "adversary": "freelb"}
WAYS = {
    "bf16": {"precision": "bf16"},
    "8bit": {"precision": "8bit"},
    "4bit": {"precision": "4bit"},
    "adalora": {"adapter": "adalora", "init_rank": 6, "target_rank": 2},
}


def every_tower(tree, settings):
    towers = {name: tree[name] | settings for name in ("user_tower", "item_tower")}
    if tree["user_tower"].get("adapter") == "none":
        towers["user_tower"] = tree["user_tower"]
    return tree | towers


@pytest.fixture
def last_is_best(monkeypatch):
    """Every epoch is the best, so that what is compared has learned."""
    original = wiring.train_two_tower

    def rising(*arguments, **named):
        validate = named["validate"]
        model = arguments[0]
        start = {n: p.detach().clone() for n, p in model.trained_parameters().items()}

        def judge():
            validate()
            moved = [(p - start[n]).abs().sum() for n, p in model.trained_parameters().items() if n in start]
            return 1.0 + float(torch.stack(moved).sum().detach())

        return original(*arguments, **(named | {"validate": judge, "start_validation": 0.0}))

    monkeypatch.setattr(wiring, "train_two_tower", rising)


@pytest.mark.parametrize("name", [name for name in SECTIONS if name != "everything"])
def test_it_learns_what_is_obvious(recipe_tree, tmp_path, name):
    _, result, _ = run(tree_of(name, recipe_tree, tmp_path, epochs=4, learning_rate=0.02))
    first, last = result.epochs[0].parts, result.epochs[-1].parts
    assert first.keys() == SECTIONS[name].keys() & set(OBJECTIVES)
    for part in first:
        assert last[part] < 0.92 * first[part], (part, first[part], last[part])
    if name == "interest":  # chosen by the AUC of likes
        assert result.best_validation > result.start_validation + 0.02


def learned(model):
    return {name: tensor.detach().clone() for name, tensor in model.learned_state().items()}


def killed_and_resumed(tree, monkeypatch):
    """Dies at the second checkpoint, in the middle of an epoch, and at one more; goes on to the end."""
    original = Checkpoints.save
    for n in (2, 2):
        saves = itertools.count(1)

        def save(self, checkpoint, saves=saves, n=n):
            original(self, checkpoint)
            if next(saves) == n:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", save)
            with pytest.raises(Killed):
                run(tree, keep=True)
    return run(tree, keep=True)


def check_resume(tree, monkeypatch):
    model, result, _ = run(tree)
    assert result.best_epoch == 2
    again, resumed, _ = killed_and_resumed(tree, monkeypatch)
    assert learned(model).keys() == learned(again).keys()
    for name, tensor in learned(model).items():
        assert torch.equal(tensor, learned(again)[name]), name
    assert [log.parts for log in resumed.epochs] == [log.parts for log in result.epochs]
    return model


def test_everything_resumes_with_the_same_bits(recipe_tree, tmp_path, monkeypatch, last_is_best):
    tree = tree_of("everything", recipe_tree, tmp_path, epochs=2) | {"regularisation": HARD}
    model = check_resume(tree, monkeypatch)
    numbers = {name: number.detach() for name, number in model.task_numbers.items()}
    assert set(numbers) > {"interest_weights", "interest_bias", "feature0_weights", "log_variance_bpr"}
    assert all(bool(number.any()) for number in numbers.values())  # each has moved from its zeros


@pytest.mark.slow
@pytest.mark.parametrize("name", SECTIONS)
def test_each_resumes_with_the_same_bits(recipe_tree, tmp_path, monkeypatch, last_is_best, name):
    check_resume(tree_of(name, recipe_tree, tmp_path, epochs=2), monkeypatch)


@pytest.mark.parametrize("way", WAYS)
def test_everything_in_every_precision_and_with_adalora(recipe_tree, tmp_path, way, last_is_best):
    tree = every_tower(tree_of("everything", recipe_tree, tmp_path, epochs=2), WAYS[way])
    _, result, _ = run(tree | {"regularisation": {"adversary": "fgm"}})
    assert result.best_epoch == 2
    first, last = result.epochs[0].parts, result.epochs[-1].parts
    assert sum(last.values()) < 0.95 * sum(first.values())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), list(itertools.product(SECTIONS, WAYS)))
def test_each_in_every_precision_and_with_adalora(recipe_tree, tmp_path, name, way):
    tree = tree_of(name, recipe_tree, tmp_path, epochs=3, learning_rate=0.02)
    _, result, _ = run(every_tower(tree, WAYS[way]))
    first, last = result.epochs[0].parts, result.epochs[-1].parts
    assert sum(last.values()) < sum(first.values())


@pytest.mark.slow
def test_two_processes_equal_one(recipe_tree, tmp_path):
    script = Path(__file__).parent / "objectives_in_processes.py"
    trees = {name: tree_of(name, recipe_tree, tmp_path / name, epochs=2) for name in SECTIONS}
    trees["everything"]["regularisation"] = HARD
    (tmp_path / "trees.json").write_text(json.dumps(trees))
    for n in (1, 2):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"]
        output = str(tmp_path / f"{n}.safetensors")
        subprocess.run([*launcher, str(script), str(tmp_path / "trees.json"), output], check=True)
    one, two = (load_file(str(tmp_path / f"{n}.safetensors")) for n in (1, 2))
    assert (int(one.pop("processes")), int(two.pop("processes"))) == (1, 2)
    assert {name.split("/")[0] for name in one} == set(SECTIONS)
    assert any("task_numbers.log_variance" in name for name in one)
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], atol=2e-5, rtol=0, msg=name)


def test_weights_start_as_given_and_are_learned(recipe_tree, tmp_path):
    model, result, material = run(tree_of("uncertain", recipe_tree, tmp_path, epochs=4, learning_rate=0.02))
    objectives = Objectives(material, {"softmax": 0.5, "interest": 2}, True, 1, 1, 0, 8, 0, 0, 0, 0)
    numbers = objectives.first_numbers(8)
    losses = {"softmax": torch.tensor(3.0), "interest": torch.tensor(0.5)}
    begins = 0.5 * 3.0 + 2 * 0.5 + (math.log(2) - math.log(2)) / 2
    assert objectives.combine(losses, numbers).item() == pytest.approx(begins)
    numbers["log_variance_softmax"] = torch.tensor(1.0)
    expected = math.exp(-1) * 3.0 + 1 / 2 + 2 * 0.5 - math.log(2) / 2
    assert objectives.combine(losses, numbers).item() == pytest.approx(expected)
    # The best weight is 1 / (2 loss): the softmax, whose loss is over 1, must lose some.
    assert model.task_numbers["log_variance_softmax"].item() > -math.log(0.5)


def test_mined_negatives_are_unknown_items_that_rank_high(recipe_tree, tmp_path, monkeypatch):
    seen = []
    original = wiring.train_two_tower

    def watch(*arguments, **named):
        mine = named["mine"]
        return original(*arguments, **(named | {"mine": lambda: seen.append(mine()) or seen[-1]}))

    monkeypatch.setattr(wiring, "train_two_tower", watch)
    tree = tree_of("mined", recipe_tree, tmp_path, epochs=3, learning_rate=0.05)
    _, _, material = run(tree)
    assert len(seen) == 4  # at the start, and after each epoch
    assert any((seen[0] != later).any() for later in seen[1:])
    users = material.examples.users
    for row, found in enumerate(seen[-1]):
        assert len(set(found.tolist())) == 4
        assert not np.isin(found, material.known[int(users[row])]).any()
    drawing = {"extra_items": 5, "lists_per_step": 0, "list_length": 2, "seed": 0}
    batch = draw_batch(material, np.arange(6), 1, mined=seen[-1], mined_negatives=2, **drawing)
    for row in range(6):
        chosen = batch.items[batch.mined[row].numpy()]
        assert len(chosen) == 2
        assert set(chosen.tolist()) <= set(seen[-1][row].tolist())
        assert not (batch.mined[row] & batch.known_mask[row]).any()
    assert int(batch.drawn.sum()) == 5


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ({"softmax": 0, "alignment": 0}, "objectives.objectives: every weight is 0; give one"),
        ({"softmax": -1}, "objectives.softmax: -1.0 is negative"),
        ({"item_features": 1}, "objectives.item_features: name fields of the items in class_fields"),
        ({"tag_fields": ["genres"]}, "have no effect without item_features; leave them out"),
        ({"mined_pool": 9}, "mined_pool: no effect without mined_negatives; leave out"),
        ({"softmax": 0, "mined_negatives": 1}, "mined_negatives: has no effect without one of softmax"),
        ({"softmax": 0, "weighting": "uncertainty"}, "'uncertainty' weighs several objectives"),
        ({"judged_by": "interest"}, "liked_from, judged_by: no effect without interest"),
        ({"bqr": 1}, "objectives.bqr: unknown key; did you mean 'bpr'?"),
        (
            {"softmax": 0, "alignment": 0, "item_features": 1, "tag_fields": ["a"]},
            "item_features alone teaches the user tower nothing; set user_tower.adapter=none",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(recipe_tree, objectives, message):
    with pytest.raises(RecipeError) as error:
        build_config(Recipe, recipe_tree | {"objectives": objectives})
    assert message in str(error.value)


def test_an_objective_that_the_data_cannot_teach_is_refused(recipe_tree, tmp_path):
    tree = recipe_tree | {"objectives": {"listwise": 1}}
    with pytest.raises(RecipeError, match="objectives.listwise: learns from lists that were shown, which"):
        run(tree)
    tree = recipe_tree | {"objectives": {"item_features": 1, "class_fields": ["titel"]}}
    with pytest.raises(DataError, match="objectives.class_fields: there is no field 'titel'; did you mean"):
        run(tree)
    tree = tree_of("interest", recipe_tree, tmp_path)
    tree["objectives"]["liked_from"] = 6
    with pytest.raises(DataError, match="objectives.liked_from: all 750 ratings to learn from are below 6"):
        run(tree)
    with pytest.raises(RecipeError, match="train.extra_items: 0, and objectives bpr draw their negatives"):
        build_config(
            Recipe,
            recipe_tree
            | {"objectives": {"bpr": 1}, "train": {"extra_items": 0}, "data": write_rated(tmp_path)},
        )


def test_without_ratings_random_items_are_what_is_not_liked(recipe_tree):
    model, result, _ = run(
        recipe_tree
        | {
            "objectives": {"softmax": 0, "alignment": 0, "interest": 1},
            "train": recipe_tree["train"] | {"epochs": 4, "learning_rate": 0.02, "patience": 9},
        }
    )
    assert result.epochs[-1].parts["interest"] < 0.9 * result.epochs[0].parts["interest"]
    match, user, item = model.task_numbers["interest_weights"].detach()
    assert match.std() > 0 and item.any()
    assert not user.any()  # each user meets as many of both kinds
