import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import scale
import scale_data

N = 1_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    scale_data.write_items(N, folder / "items.parquet")
    scale_data.write_interactions(N, folder / "clicks")
    return folder


def test_the_tables_have_what_they_promise(folder, tmp_path, monkeypatch):
    rows, items = pq.read_table(folder / "clicks"), pq.read_table(folder / "items.parquet")
    assert rows.num_rows == 100 * N
    ids = items.column("item_id").to_pylist()
    assert len(set(ids)) == N
    assert set(rows.column("item_id").unique().to_pylist()) <= set(ids)
    assert len(rows.column("user_id").unique()) <= 2 * N
    assert np.corrcoef(np.arange(100 * N), rows.column("timestamp"))[0, 1] > 0.99
    monkeypatch.setattr(scale_data, "ROWS_PER_FILE", scale_data.ROWS_AT_ONCE)
    monkeypatch.setattr(scale_data, "ITEMS_AT_ONCE", 1 << 16)
    scale_data.write_interactions(N, tmp_path / "clicks")
    assert pq.read_table(tmp_path / "clicks").equals(rows)  # the same in files of another size


def test_the_head_is_many_items_and_the_tail_is_long():
    found = scale_data.popularity(100_000, 1_000_000)
    assert found["first"] < 0.01
    assert 0.1 < found["percent"] < 0.4
    assert 0.4 < found["tenth"] < 0.7
    drawn = scale_data.draw_interactions(100_000, 0, 1_000_000)
    counts = np.sort(np.bincount(drawn["item"], minlength=100_000))[::-1]
    ranks = np.array([100, 1000, 10_000])
    slope = np.polyfit(np.log(ranks), np.log(counts[ranks]), 1)[0]
    assert -1.2 < slope < -0.5


def test_users_have_tastes_and_near_items_share_words(folder):
    drawn = scale_data.draw_interactions(N, 0, 50_000)
    tables = np.zeros((2 * N, scale_data.N_TOPICS))
    np.add.at(tables, (drawn["user"], scale_data.topic_of(drawn["item"])), 1)
    busy = tables[tables.sum(axis=1) >= 20]
    top_three = np.sort(busy, axis=1)[:, -3:].sum(axis=1) / busy.sum(axis=1)
    assert top_three.mean() > 0.7  # 0.1 without tastes
    titles = [set(title.split()) for title in pq.read_table(folder / "items.parquet")["title"].to_pylist()]
    topics = scale_data.topic_of(np.arange(N))
    shared = {True: [], False: []}
    for a in range(0, 200):
        for b in range(a):
            shared[bool(topics[a] == topics[b])].append(len(titles[a] & titles[b]))
    assert np.mean(shared[True]) > 5 * np.mean(shared[False])


def test_the_first_stages_run(folder, tmp_path):
    for name in ("clicks", "items.parquet"):
        (tmp_path / name).symlink_to(folder / name)
    assert scale.store(tmp_path, N)["us_per_interaction"] > 0
    assert scale.tokenise(tmp_path, N)["us_per_item"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"clicks", "items.parquet", "stored", "tokens"}


def test_a_stage_that_fails_ends_the_run(tmp_path, capfd):
    with pytest.raises(SystemExit, match="index at 10k ended with an error"):
        scale.run_stage("index", tmp_path, "10k", seed=0)
    assert "vectors.npy" in capfd.readouterr().err
