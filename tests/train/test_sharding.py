"""Frozen layers parted among two processes of this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_loop import assert_same

from lora_rec.errors import TrainingError
from lora_rec.pipeline.launch import check_launch

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
