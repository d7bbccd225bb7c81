"""What a recipe script takes from its machine and its launcher."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from lora_rec.errors import TrainingError
from lora_rec.pipeline import launch as module
from lora_rec.pipeline.launch import check_launch, count_cores


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 3), (None, 3), ("9900000 100000", 3)],
)
def test_cores_are_those_that_the_process_may_use(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 4, 5}, raising=False)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    assert count_cores(tmp_path / "cpu.max") == cores


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({}, 6),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "4"}, 4),
        ({"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, 6),
        ({"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}, 3),
        ({"OMP_NUM_THREADS": "4", "LOCAL_WORLD_SIZE": "2"}, 4),
        ({"OMP_NUM_THREADS": "4,2"}, 6),
    ],
)
def test_threads_are_those_asked_for(monkeypatch, variables, threads):
    for name in ("OMP_NUM_THREADS", "ACCELERATE_MIXED_PRECISION", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    set_to = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(module, "count_cores", lambda: 6)
    module._use_cores()
    assert set_to == [threads]


def test_mixed_precision_is_said_to_have_no_effect(monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    check_launch()
    assert "mixed precision bf16 has no effect; a tower's `precision` says it" in caplog.text


def test_what_else_has_no_effect_is_said_too(monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    check_launch()
    assert "4 accumulation steps have no effect; `train.batch_size` is that of a step" in caplog.text
    assert "the dynamo backend inductor has no effect" in caplog.text
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(TrainingError, match="fsdp_offload_params would have no effect"):
        check_launch(shards=True)


@pytest.mark.skipif(sys.platform != "linux", reason="a signal of Linux")
def test_a_run_ends_with_its_launcher(tmp_path):
    """`accelerate launch` of one process passes no signal on."""
    run = (
        "import signal, sys, time, pathlib\n"
        "from lora_rec.pipeline.launch import _end_with_launcher\n"
        f"place = pathlib.Path({str(tmp_path)!r})\n"
        "signal.signal(signal.SIGTERM, lambda *_: ((place / 'ended').touch(), sys.exit()))\n"
        "_end_with_launcher()\n"
        "(place / 'begun').touch()\n"
        "time.sleep(60)\n"
    )
    (tmp_path / "run.py").write_text(run)
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, {str(tmp_path / 'run.py')!r}])"
    environment = os.environ | {"ACCELERATE_MIXED_PRECISION": "no", "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen([sys.executable, "-c", launcher], env=environment)
    assert _appears(tmp_path / "begun")
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    assert _appears(tmp_path / "ended")


def _appears(file):
    """Waits a minute at most."""
    end = time.monotonic() + 60
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.05)
    return file.exists()
