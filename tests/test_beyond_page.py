"""The page about more than one machine: its code runs, and its numbers are those of the results."""

import json
import re
import shutil
from pathlib import Path

import pytest

import lora_rec
from lora_rec.cli import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "recipes" / "beyond-one-machine.md").read_text(encoding="utf-8")
USERS = {"ann": ["i3", "i5"], "bob": ["i1", "i9"]}


@pytest.fixture
def place(bundle, tmp_path, monkeypatch):
    shutil.copytree(bundle, tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def code_of(name):
    (code,) = re.findall(rf"<!-- test: {name} -->\n```python\n(.*?)```", PAGE, flags=re.S)
    return code.replace("318", "i3").replace("296", "i5")


def test_milvus(place):
    pytest.importorskip("milvus_lite", reason="needs pip install 'lora-rec[milvus]'")
    (command,) = re.findall(r"^    lora-rec (milvus .*)$", PAGE, flags=re.M)
    assert main(command.split()) == 0
    space = {}
    exec(code_of("milvus").replace('array_contains(genres, "Drama")', 'title like "love%"'), space)  # noqa: S102
    expected = lora_rec.load("runs/quickstart").recommend(["i3", "i5"], k=10, diversity=0)
    assert [item for item, _ in space["liked"]] == [item.item_id for item in expected]
    titles = space["rec"].titles
    assert space["dramas"]
    assert all(titles[space["rec"].positions[item]].startswith("love") for item, _ in space["dramas"])


@pytest.mark.slow
def test_ray(place, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs pip install 'lora-rec[ray]'")
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pq.write_table(pa.table({"user_id": list(USERS), "history": list(USERS.values())}), "users.parquet")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    space = {}
    try:
        exec(code_of("ray"), space)  # noqa: S102
    finally:
        ray.shutdown()
    assert space["n_rows"] == pq.read_table("lists").num_rows == 20


@pytest.mark.parametrize(
    ("file", "case", "system", "metric", "shown"),
    [
        ("speed", "encode", "lora_rec", "texts_per_s", "{:,.0f} texts/s"),
        ("speed", "encode", "lora_rec, cached", "texts_per_s", "{:,.0f} texts/s (2 layers)"),
        ("speed", "encode", "lora_rec, cached, last layer", "texts_per_s", "{:,.0f} (1)"),
        ("speed", "train-minilm", "lora_rec", "interactions_per_s", "{:.0f} /s with 16 targets"),
        ("speed", "train-minilm", "lora_rec, 1 target", "interactions_per_s", ", {:.0f} with one"),
        ("search_speed", "search-1m", "lora_rec", "ms_exact", "{:.0f} ms a user with N = 1 M"),
        ("search_speed", "search-1m", "lora_rec", "ms_approximate", "{:.2f} ms with N = 1 M"),
        ("search_speed", "search-1m", "lora_rec", "recall", "(recall {:.3f})"),
        ("search_speed", "search-100k", "lora_rec", "ms_approximate", "{:.2f} ms with .1 M"),
        ("search_speed", "search-1m", "lora_rec", "s_to_make", "{:.0f} s with N = 1 M"),
    ],
)
def test_constants_are_those_measured(file, case, system, metric, shown):
    _, *rows = json.loads((ROOT / "benchmarks" / "results" / f"{file}.json").read_text())
    found = [r["value"] for r in rows if (r["case"], r["system"], r["metric"]) == (case, system, metric)]
    (value,) = found
    assert shown.format(value).replace("recall 0.", "recall .") in PAGE
