"""The configurations of `accelerate launch`."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser

import lora_rec

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "recipes" / "launch").glob("*.yaml"))


def test_there_are_some():
    assert [path.stem for path in CONFIGS] == ["ddp", "fsdp", "hosts"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_knows_every_key(path):
    config = load_config_from_file(str(path))  # refuses unknown keys
    assert isinstance(config, ClusterConfig)
    assert config.distributed_type.value == ("FSDP" if path.stem == "fsdp" else "MULTI_GPU")
    known = {action.dest for action in launch_command_parser()._actions}
    assert set(config.fsdp_config) <= known


@pytest.fixture
def start(recipe_tree, tmp_path):
    """Starts the recipe over the tiny models by one of the configurations, without a GPU."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(recipe_tree))

    def start(name, *options, overrides=(), script="two_tower"):
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "-q"]
        file = str(ROOT / "recipes" / "launch" / f"{name}.yaml")
        command = [*launcher, "--config_file", file, *options, str(ROOT / "recipes" / f"{script}.py")]
        environment = os.environ | {
            "ACCELERATE_USE_CPU": "true",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [*command, str(recipe), *overrides],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def finish(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out, err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "overrides"), [("ddp", ()), ("fsdp", ("item_tower.precision=4bit",))])
def test_two_processes_of_one_machine_write_one_bundle(start, tmp_path, name, overrides):
    out, err = finish(start(name, overrides=overrides))
    assert out.count("ranking_head_diverse |") == 1
    assert ("frozen layers parted among 2 processes" in err) == (name == "fsdp")
    assert len(lora_rec.load(tmp_path / "runs" / "tiny").recommend(["i3", "i5"], k=5)) == 5


@pytest.mark.slow
def test_two_launches_are_two_hosts(start, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = ("--main_process_ip", "127.0.0.1", "--main_process_port", port, "--machine_rank")
    hosts = [start("hosts", *options, rank) for rank in ("0", "1")]
    outs = [finish(host)[0] for host in hosts]
    assert [out.count("ranking_head_diverse |") for out in outs] == [1, 0]
    assert (tmp_path / "runs" / "tiny" / "bundle.json").is_file()


@pytest.mark.slow
def test_a_script_that_shards_nothing_says_so(start):
    process = start("fsdp", script="shown_lists")
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "launch: this script shards nothing, so FSDP would have no effect" in err
