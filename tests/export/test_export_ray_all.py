"""Lists through Ray's engine on two CPUs of this machine."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lora_rec
from lora_rec import lock
from lora_rec.cli import main
from lora_rec.errors import BundleError, DataError, LoraRecError
from lora_rec.export import ray_all
from lora_rec.export.all_users import recommend_block
from lora_rec.export.ray_all import ListWorker, lists_dataset, recommend_all_ray

HISTORIES = {f"u{n}": [f"i{(7 * n + j) % 40}" for j in range(1 + n % 5)] for n in range(30)}


@pytest.fixture(scope="module")
def ray():
    """The engine, once for all tests; what its workers import is this folder."""
    ray = pytest.importorskip("ray", reason="needs pip install 'lora-rec[ray]'")
    pytest.importorskip("ray.data", reason="needs pip install 'lora-rec[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
        ray.shutdown()


@pytest.fixture
def users(tmp_path):
    file = tmp_path / "users.parquet"
    table = pa.table({"user_id": list(HISTORIES), "history": list(HISTORIES.values()), "age": [1] * 30})
    pq.write_table(table, file)
    return file


def test_lists_are_those_of_recommend(ray, bundle, users, tmp_path):
    rec = lora_rec.load(bundle)
    rows = recommend_all_ray(bundle, users, tmp_path / "lists", k=5, users_at_once=7, diversity=0.3)
    table = pq.read_table(tmp_path / "lists").to_pandas()
    assert rows == len(table) == 30 * 5
    assert sorted(table.user_id.unique()) == sorted(HISTORIES)
    for user, mine in table.groupby("user_id"):
        expected = rec.recommend(HISTORIES[user], k=5, diversity=0.3)
        assert mine["rank"].tolist() == [1, 2, 3, 4, 5]
        assert mine.item_id.tolist() == [item.item_id for item in expected]
        assert mine.title.tolist() == [item.title for item in expected]
        assert mine.score.tolist() == pytest.approx([item.score for item in expected], abs=1e-4)
    assert {path.name for path in tmp_path.iterdir() if "cache" not in path.name} == {
        "users.parquet",
        "lists",
    }


def test_a_worker_opens_the_bundle_once_and_imports_no_torch(ray, bundle):
    class Watched(ListWorker):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.n_blocks = 0

        def __call__(self, histories):
            self.n_blocks += 1
            n = len(super().__call__(histories))
            return pa.table({"rows": [n], "torch": ["torch" in sys.modules], "block": [self.n_blocks]})

    table = pa.table({"user_id": list(HISTORIES), "history": list(HISTORIES.values())})
    watched = ray.data.from_arrow(table).map_batches(
        Watched,
        fn_constructor_args=(str(bundle), 5, {}, lora_rec.load(bundle).manifest),
        batch_format="pyarrow",
        batch_size=10,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    rows = watched.take_all()
    assert [row["rows"] for row in rows] == [50, 50, 50]
    assert sorted(row["block"] for row in rows) == [1, 2, 3]
    assert not any(row["torch"] for row in rows)


def test_the_command_gives_the_same_lists(ray, bundle, users, tmp_path, capsys):
    common = ["recommend-all", str(bundle), "--users", str(users), "-k", "4", "--diversity", "0"]
    assert main([*common, "--output", str(tmp_path / "here")]) == 0
    assert main([*common, "--output", str(tmp_path / "spread"), "--engine", "ray"]) == 0
    assert "120 items" in capsys.readouterr().out
    columns = ["user_id", "rank"]
    here, spread = (
        pq.read_table(tmp_path / name).to_pandas().sort_values(columns, ignore_index=True)
        for name in ("here", "spread")
    )
    assert here.equals(spread)
    # Either engine replaces what either has written.
    assert main([*common, "--output", str(tmp_path / "here"), "--engine", "ray"]) == 0
    assert main([*common, "--output", str(tmp_path / "spread")]) == 0
    assert {path.name for path in tmp_path.iterdir() if "s.parquet" not in path.name} == {"here", "spread"}
    assert main([*common, "--output", str(tmp_path / "more"), "--engine", "ray", "--users", "a", "b"]) == 1
    assert "Ray reads one Parquet file, or a folder" in capsys.readouterr().err


def test_a_second_run_of_the_same_output_is_refused(tmp_path, monkeypatch):
    """Without the engine, of which all that matters here is that it writes a folder of files."""

    class Written:
        def write_parquet(self, place):
            Path(place).mkdir()
            pq.write_table(pa.table({"user_id": ["u"] * 3}), Path(place) / "0.parquet")

        def read_parquet(self, place):
            return Written()

        def count(self):
            return 3

    monkeypatch.setattr(ray_all, "lists_dataset", lambda *given, **settings: Written())
    monkeypatch.setattr(ray_all, "_import_ray", lambda: (None, Written()))
    begun = tmp_path / ".lists.begun"
    (begun / "lists").mkdir(parents=True)
    (begun / "lists" / "half.parquet").touch()  # what the first has written so far
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); print('held', flush=True)"
    command = [sys.executable, "-c", f"{code}; input()", str(begun / lock.LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with monkeypatch.context() as quick:
            quick.setattr(lock, "PATIENCE", 0.1)
            with pytest.raises(DataError, match="another process is writing it"):
                recommend_all_ray("bundle", "users", tmp_path / "lists")
        assert (begun / "lists" / "half.parquet").exists()
        first.communicate("\n")
    assert recommend_all_ray("bundle", "users", tmp_path / "lists") == 3
    assert [path.name for path in tmp_path.iterdir() if "cache" not in path.name] == ["lists"]
    assert len(list((tmp_path / "lists").iterdir())) == 2


def test_an_error_in_a_worker_is_one_line_and_leaves_nothing(ray, bundle, tmp_path):
    table = pa.table({"user_id": ["ann"], "history": [["i99"]]})
    with pytest.raises(DataError, match="history of ann: unknown item id 'i99'"):
        recommend_all_ray(bundle, ray.data.from_arrow(table), tmp_path / "lists")
    assert not [path for path in tmp_path.iterdir() if "lists" in path.name]


def test_wrong_places_are_said_at_once(ray, bundle, users, tmp_path):
    with pytest.raises(BundleError, match="users.parquet exists and is no folder of lists"):
        recommend_all_ray(bundle, users, users)
    with pytest.raises(DataError, match="there is no file or folder '.*none.parquet'; give one in Parquet"):
        lists_dataset(bundle, tmp_path / "none.parquet")


def test_a_missing_extra_says_what_to_install(bundle, users, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LoraRecError, match=r"ray: not installed; run: pip install 'lora-rec\[ray\]'"):
        lists_dataset(bundle, users)


def test_a_bundle_that_is_replaced_meanwhile_is_refused(bundle):
    expected = replace(lora_rec.load(bundle).manifest, files={})
    with pytest.raises(BundleError, match="replaced while lists were made from it"):
        ListWorker(str(bundle), 3, {}, expected)


@pytest.mark.parametrize("histories", [[["i1"], ["i2", "i3"]], [["i1", "i2"], ["i2", "i3"]], [[], ["i1"]]])
def test_what_a_step_in_numpy_leaves_is_read(bundle, histories):
    """As Ray makes it of a block, without its engine."""
    block = pytest.importorskip("ray.data.block", reason="needs pip install 'lora-rec[ray]'").BlockAccessor
    table = pa.table({"user_id": ["ann", "bob"], "history": histories})
    stepped = block.batch_to_block(block.for_block(table).to_batch_format("numpy"))
    rec = lora_rec.load(bundle)
    assert recommend_block(rec, block.for_block(stepped).to_arrow(), k=2) == recommend_block(rec, table, k=2)
