"""Frozen layers parted among two processes of this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from test_loop import assert_same
from tiny import EVERY, make_tower, states_of, tokens_of

from lora_rec.errors import TrainingError
from lora_rec.pipeline.launch import check_launch
from lora_rec.towers.two_tower import TwoTower, encode_states
from lora_rec.train.sharding import NO_TEXTS, in_company, shard_frozen_layers

SCRIPT = Path(__file__).parent / "train_in_processes.py"
SETTINGS = {
    # Micro-batches of few tokens: the processes have other numbers of them.
    "cached": {},
    "every layer": {"trained_layers": None},
    "4bit": {"precision": "4bit", "compute": "fp32"},
}


def run(tree, folder, *, n, **environment):
    file, output = folder / "tree.json", folder / f"{n}.safetensors"
    file.write_text(json.dumps(tree))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"]
    done = subprocess.run(
        [*launcher, str(SCRIPT), str(file), str(output)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return load_file(str(output))


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_with_a_part_each_equal_one(recipe_tree, tmp_path, name):
    towers = {tower: recipe_tree[tower] | SETTINGS[name] for tower in ("user_tower", "item_tower")}
    tree = recipe_tree | towers | {"train": recipe_tree["train"] | {"token_budget": 40}}
    one = run(tree, tmp_path, n=1, LORA_REC_CACHE=str(tmp_path / "one"))
    two = run(tree, tmp_path, n=2, LORA_REC_CACHE=str(tmp_path / "two"), ACCELERATE_USE_FSDP="true")
    assert (int(one.pop("processes")), int(two.pop("processes"))) == (1, 2)
    assert all(tensor.any() for tensor in one.values())
    assert_same(one, two, atol=1e-5)


class Gathered:
    """Two processes; the other makes three passes."""

    device = torch.device("cpu")

    def gather(self, mine):
        return torch.cat([mine, torch.tensor([3])])


@pytest.mark.parametrize("is_sharded", [True, False])
def test_every_process_makes_as_many_passes(is_sharded):
    plan = [np.array([2, 0])]
    passes = in_company(Gathered(), is_sharded, plan)
    assert [rows.tolist() for rows in passes] == [[2, 0]] + [[], []] * is_sharded
    assert [rows.tolist() for rows in in_company(None, is_sharded, plan)] == [[2, 0]]


def test_a_pass_for_others_leaves_nothing(models):
    tower = make_tower(models["llama"])
    source = tokens_of(tower)
    plain = states_of(tower)
    more = encode_states(tower, source, EVERY, token_budget=1000, complete=lambda plan: [*plan, NO_TEXTS])
    np.testing.assert_array_equal(more, plain)


def test_what_cannot_be_parted_is_refused(models, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    tower = make_tower(models["llama"], precision="8bit")
    message = "user_tower: FSDP parts no layers in 8 bit .* set user_tower.precision=4bit"
    with pytest.raises(TrainingError, match=message):
        shard_frozen_layers(TwoTower(tower, tower), Accelerator(cpu=True))


def test_what_would_have_no_effect_is_refused(monkeypatch):
    check_launch()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check_launch(shards=True)
    with pytest.raises(TrainingError, match="this script shards nothing, so FSDP would have no effect"):
        check_launch()
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    with pytest.raises(TrainingError, match="fsdp_cpu_ram_efficient_loading leaves the weights .* empty"):
        check_launch(shards=True)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(TrainingError, match="DeepSpeed would have no effect: it shards what is trained"):
        check_launch(shards=True)
