"""What is stored is what `load_dataset` gives, however the tables are written and however little memory."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_rec.data import external_sort, load_dataset, store
from lora_rec.data.parts import find_parts
from lora_rec.data.store import store_dataset
from lora_rec.data.stored import ArrayWriter, Texts, open_stored
from lora_rec.errors import BundleError, DataError

ARRAYS = ("user_ids", "item_ids", "users", "items", "times", "ratings")


@pytest.fixture(autouse=True)
def little_memory(monkeypatch):
    """Parts of about 80 rows and batches of 20, so that every table here is sorted on disk."""
    monkeypatch.setattr(store, "BYTES_PER_ROW", 800_000)


def make_tables(*, n=600, users=None, items=None, times=None, seed=0):
    generator = np.random.default_rng(seed)
    users = np.arange(95, 145) if users is None else users
    items = np.arange(5, 30) if items is None else items
    rows = {
        "user_id": users[generator.zipf(1.3, n) % len(users)],
        "item_id": items[generator.integers(0, len(items), n)],
        "timestamp": generator.integers(0, 60, n) if times is None else times(generator, n),
        "rating": generator.integers(1, 6, n).astype(float),
    }
    texts = {
        "item_id": items[::-1],
        "title": [f" Film, {i}  " for i in range(len(items))],
        "year": [1990.0 + i if i % 7 else None for i in range(len(items))],
        "price": [i + 0.5 for i in range(len(items))],
        "tags": [["a", f"b{i}"] for i in range(len(items))],
    }
    return pd.DataFrame(rows), pd.DataFrame(texts)


def check_equal(stored, expected):
    got = stored.to_dataset()
    for name in ARRAYS:
        a, b = getattr(got, name), getattr(expected, name)
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_array_equal(a, b, err_msg=name)
    assert got.item_fields == expected.item_fields
    assert got.notes == expected.notes


def both(interactions, items, output, *, memory=(), **settings):
    """Stores what is given, loads what `memory` holds of the same, and compares data and warnings."""
    with warnings.catch_warnings(record=True) as stored_warnings:
        warnings.simplefilter("always", UserWarning)
        stored = store_dataset(interactions, items, output, memory_mb=64, **settings)
    with warnings.catch_warnings(record=True) as loaded_warnings:
        warnings.simplefilter("always", UserWarning)
        expected = load_dataset(*(memory or (interactions, items)), **settings)
    check_equal(stored, expected)
    assert [str(w.message) for w in stored_warnings] == [str(w.message) for w in loaded_warnings]
    return stored, stored_warnings


IDS = {
    "numbers": (np.arange(95, 145), np.arange(5, 30)),
    "negative": (np.arange(-25, 25), np.arange(-5, 20)),
    "texts": (
        np.array([f"user_{i:05d}"[: 6 + i % 6] + "é" * (i % 3) for i in range(50)]),
        np.array([f"i{i}" for i in range(25)]),
    ),
    "zeros": (np.array([f"{i:04d}" for i in range(50)]), np.array([f"{i:03d}" for i in range(25)])),
    "floats": (np.arange(95, 145).astype(float), np.arange(5, 30).astype(float)),
    "long": (np.array(["u" * 70 + f"{i}" for i in range(50)]), np.array(["x" * i for i in range(1, 26)])),
}


@pytest.mark.parametrize(("ids", "kind"), list(itertools.product(IDS, ["csv", "parquet"])))
def test_ids_of_every_kind(ids, kind, tmp_path):
    users, items = IDS[ids]
    rows, texts = make_tables(users=users, items=items)
    texts = texts.drop(columns="tags")
    paths = [tmp_path / f"{name}.{kind}" for name in ("rows", "texts")]
    for table, path in zip((rows, texts), paths, strict=True):
        table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    stored, warned = both(*paths, tmp_path / "out", rating_column="rating")
    assert warned  # ties with the same item are there, so what is compared is not trivial
    assert isinstance(stored.histories.values.base, np.memmap)


TIMES = {
    "milliseconds": lambda g, n: 1_600_000_000_000 + g.integers(0, 90_000, n),
    "fractions": lambda g, n: 1_600_000_000 + g.integers(0, 90, n) / 8,
    "dates": lambda g, n: pd.to_datetime(1_600_000_000_000 + g.integers(0, 90_000, n), unit="ms"),
    "texts": lambda g, n: [f"2020-01-01T00:00:{s:02d}.5Z" for s in g.integers(0, 60, n)],
    "spaces": lambda g, n: [f" {s} " for s in g.integers(0, 60, n)],
}


@pytest.mark.parametrize(("times", "kind"), list(itertools.product(TIMES, ["csv", "parquet"])))
def test_times_of_every_kind(times, kind, tmp_path):
    rows, texts = make_tables(times=TIMES[times])
    path = tmp_path / f"rows.{kind}"
    rows.to_csv(path, index=False) if kind == "csv" else rows.to_parquet(path)
    texts.to_parquet(tmp_path / "texts.parquet")
    stored, _ = both(path, tmp_path / "texts.parquet", tmp_path / "out", text_columns=["title", "tags"])
    assert list(stored.item_fields) == ["title", "tags"]


@pytest.mark.parametrize("settings", [{"time_column": None}, {"rating_column": "rating", "min_rating": 4}])
def test_without_times_and_with_fewer_ratings(settings, tmp_path):
    rows, texts = make_tables()
    rows.to_parquet(tmp_path / "rows.parquet")
    texts.to_parquet(tmp_path / "texts.parquet")
    both(tmp_path / "rows.parquet", tmp_path / "texts.parquet", tmp_path / "out", **settings)


def test_many_files_are_one_table(tmp_path):
    rows, texts = make_tables()
    (tmp_path / "rows").mkdir()
    (tmp_path / "texts").mkdir()
    for part, start in enumerate((0, 100, 101, 350)):
        rows[start : [100, 101, 350, 600][part]].to_csv(tmp_path / f"rows/{part}.csv.gz", index=False)
    (tmp_path / "rows" / "_SUCCESS").write_text("")
    texts[:9].to_parquet(tmp_path / "texts/a.parquet")
    texts[9:].to_parquet(tmp_path / "texts/b.parquet")
    both(tmp_path / "rows", tmp_path / "texts", tmp_path / "out", memory=(rows, texts))
    both(sorted((tmp_path / "rows").glob("*.gz")), tmp_path / "texts", tmp_path / "two", memory=(rows, texts))


def test_tables_in_folders_below_are_not_missed(tmp_path):
    for name in ("a.csv", "2026/b.csv", "_temporary/c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("user_id,item_id\nann,i1\n")
    with pytest.raises(DataError, match=r"has tables in folders below it, e.g. .*b\.csv; give one folder"):
        find_parts(tmp_path, name="users")
    (tmp_path / "2026" / "b.csv").unlink()
    assert len(find_parts(tmp_path, name="users")) == 1


def test_files_may_differ_in_types_that_mean_the_same(tmp_path):
    rows, texts = make_tables(users=np.array([f"u{i}" for i in range(50)]))
    texts.to_parquet(tmp_path / "texts.parquet")
    first = pa.Table.from_pandas(rows[:200], preserve_index=False)
    second = pa.Table.from_pandas(rows[200:].assign(timestamp=rows["timestamp"] + 0.5), preserve_index=False)
    second = second.set_column(0, "user_id", second.column("user_id").cast(pa.string()).dictionary_encode())
    pq.write_table(
        first.set_column(0, "user_id", first.column("user_id").cast(pa.string_view())), tmp_path / "a.parquet"
    )
    pq.write_table(second, tmp_path / "b.parquet")
    whole = pd.concat([first.to_pandas(), second.to_pandas().astype({"user_id": str})], ignore_index=True)
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    both(paths, tmp_path / "texts.parquet", tmp_path / "out", memory=(whole, texts))


MIXED_TIMES = {
    "dates, then numbers": (["2020-01-01", "2020-01-02"], ["1700000000"]),
    "numbers, then a date": (["1700000000", "1700000001"], ["2020-01-01"]),
    "timestamps, then numbers": (pd.to_datetime(["2020-01-01", "2020-01-02"]), [1_700_000_000]),
    "numbers, then a timestamp": ([1_700_000_000, 1_700_000_001], pd.to_datetime(["2020-01-01"])),
}


@pytest.mark.parametrize("case", MIXED_TIMES)
def test_files_whose_times_do_not_mean_the_same(case, tmp_path):
    for name, times in zip("ab", MIXED_TIMES[case], strict=True):
        table = pd.DataFrame({"user_id": [1] * len(times), "item_id": [5] * len(times), "timestamp": times})
        table.to_parquet(tmp_path / f"{name}.parquet")
    make_tables()[1].to_parquet(tmp_path / "texts.parquet")
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    with pytest.raises(DataError, match="1 row where the cell is no time .b.parquet row 0: "):
        store_dataset(paths, tmp_path / "texts.parquet", tmp_path / "out", memory_mb=64)


def test_short_dates_look_like_numbers(tmp_path):
    rows, texts = make_tables(
        times=lambda g, n: ["20200101", "20200102"] * (n // 4) + ["2020-01-01"] * (n // 2)
    )
    rows.to_csv(tmp_path / "rows.csv", index=False)
    texts.to_parquet(tmp_path / "texts.parquet")
    stored, _ = both(tmp_path / "rows.csv", tmp_path / "texts.parquet", tmp_path / "out")
    assert set(stored.times.tolist()) == {1_577_836_800, 1_577_923_200}


def test_tables_of_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows, texts = make_tables()
    table, catalog = (datasets.Dataset.from_pandas(t, preserve_index=False) for t in (rows, texts))
    both(table, catalog, tmp_path / "out", memory=(rows, texts))
    table.save_to_disk(tmp_path / "saved")
    both(tmp_path / "saved", catalog, tmp_path / "two", memory=(rows, texts))
    both(table.to_iterable_dataset(num_shards=3), catalog, tmp_path / "three", memory=(rows, texts))


class Fading:
    """A table of `datasets` that has fewer rows when it is gone through a second time."""

    def __init__(self, table, n_left):
        self.column_names, self.with_format = table.column_names, table.with_format
        self.passes = iter([table, table.select(range(n_left))])

    def select_columns(self, columns):
        return next(self.passes).select_columns(columns)


@pytest.mark.parametrize(
    ("name", "n_rows", "n_left"),
    [("interactions", 600, 0), ("interactions", 600, 250), ("items", 25, 0), ("items", 25, 7)],
)
def test_a_stream_that_ends_sooner_the_second_time(name, n_rows, n_left, tmp_path):
    datasets = pytest.importorskip("datasets")
    tables = dict(zip(("interactions", "items"), make_tables(), strict=True))
    for other, table in tables.items():
        table.to_parquet(tmp_path / f"{other}.parquet")
    given = {other: tmp_path / f"{other}.parquet" for other in tables}
    given[name] = Fading(datasets.Dataset.from_pandas(tables[name], preserve_index=False), n_left)
    said = f"{name}: {n_rows} rows when looked at and {n_left} when read again"
    with pytest.raises(DataError, match=said):
        store_dataset(given["interactions"], given["items"], tmp_path / "out", memory_mb=64)
    assert not (tmp_path / "out").exists()


def test_parts_are_of_like_size(tmp_path, monkeypatch):
    sizes = []
    original = external_sort.sort_part
    monkeypatch.setattr(store, "sort_part", lambda file: sizes.append(original(file)) or sizes[-1])
    rows, texts = make_tables(n=4000, users=np.arange(1500))
    rows.to_parquet(tmp_path / "rows.parquet")
    texts.to_parquet(tmp_path / "texts.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store_dataset(tmp_path / "rows.parquet", tmp_path / "texts.parquet", tmp_path / "out", memory_mb=64)
    counts = [int(part.counts.sum()) for part in sizes]
    assert sum(counts) == 4000
    most = int(rows["user_id"].value_counts().max())
    assert 20 < len(counts) < 64  # one for 64 sampled rows, and every row is one here
    assert max(counts) < 64 + most


def problems_of(tmp_path, rows, texts, **settings):
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    rows[:30].to_csv(first, index=False)
    rows[30:].to_csv(second, index=False)
    texts.drop(columns="tags").to_csv(tmp_path / "items.csv", index=False)
    with pytest.raises(DataError) as error:
        store_dataset([first, second], tmp_path / "items.csv", tmp_path / "out", memory_mb=64, **settings)
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "b.csv", "items.csv"}
    return str(error.value)


def test_bad_rows_are_named_by_file_and_row(tmp_path):
    rows, texts = make_tables(n=60)
    rows = rows.astype(object)
    rows.loc[3, "user_id"] = None
    rows.loc[35, "user_id"] = "  "
    rows.loc[59, "timestamp"] = "soon"
    texts.loc[4, "item_id"] = texts.loc[2, "item_id"]
    message = problems_of(tmp_path, rows, texts)
    assert message.startswith("data: 3 problems; put them right or drop those rows\n")
    assert "interactions.user_id: 2 rows with an empty id (a.csv row 3: None, b.csv row 5: '  ')" in message
    assert "interactions.timestamp: 1 row where the cell is no time (b.csv row 29: 'soon')" in message
    assert "items.item_id: 1 row with an item that an earlier row has (items.csv row 4: '27')" in message
    assert "(rows are counted from 0, without the header)" in message


def test_unknown_items_are_named_by_file_and_row(tmp_path):
    rows, texts = make_tables(n=60)
    rows.loc[[2, 40], "item_id"] = [999, 998]
    message = problems_of(tmp_path, rows, texts)
    assert (
        "2 rows with an item that the item table lacks (a.csv row 2: '999', b.csv row 10: '998')" in message
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_column": "user"}, r"interactions .a.csv..user: no such column; did you mean 'user_id'"),
        ({"min_rating": 9, "rating_column": "rating"}, "no rating reaches 9 .highest: 5.0.; lower it"),
        ({"min_rating": 9}, "min_rating: 9 without a rating_column"),
        ({"memory_mb": 1}, "memory_mb: 1 is too little"),
        ({"interactions": "no.csv"}, "interactions: no file no.csv; did you mean 'none.csv'|check the path"),
        ({"interactions": []}, "interactions: no file; give at least one"),
    ],
)
def test_what_else_is_wrong(change, message, tmp_path):
    rows, texts = make_tables(n=60)
    rows.to_csv(tmp_path / "a.csv", index=False)
    texts.to_parquet(tmp_path / "items.parquet")
    named = {
        "interactions": tmp_path / "a.csv",
        "items": tmp_path / "items.parquet",
        "memory_mb": 64,
    } | change
    with pytest.raises(DataError, match=message), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store_dataset(output=tmp_path / "out", **named)
    assert not (tmp_path / "out").exists()


def test_a_row_that_is_too_long_is_named(tmp_path):
    _, texts = make_tables()
    texts.to_parquet(tmp_path / "items.parquet")
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n1,5,1\n1,5,1,9\n")
    with pytest.raises(DataError, match="a.csv cannot be read .*Row #3: Expected 3 columns, got 4"):
        store_dataset(tmp_path / "a.csv", tmp_path / "items.parquet", tmp_path / "out")


def test_kinds_of_ids_are_one(tmp_path):
    rows, texts = make_tables(n=60)
    texts.to_parquet(tmp_path / "items.parquet")
    rows[:30].to_parquet(tmp_path / "a.parquet")
    rows[30:].assign(user_id="u").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(
        DataError, match="user_id: ids of mixed types int and str .a.parquet row 0: .*b.parquet"
    ):
        store_dataset(
            [tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "items.parquet", tmp_path / "o"
        )


def test_a_killed_write_leaves_the_old_data(tmp_path, monkeypatch):
    rows, texts = make_tables()
    rows.to_parquet(tmp_path / "rows.parquet")
    texts.to_parquet(tmp_path / "texts.parquet")
    paths = (tmp_path / "rows.parquet", tmp_path / "texts.parquet", tmp_path / "out")
    with pytest.warns(UserWarning, match="repeat a user"):
        store_dataset(*paths, memory_mb=64)
    before = open_stored(tmp_path / "out").histories.values.copy()

    def fail(file):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "sort_part", fail)
    with pytest.raises(KeyboardInterrupt):
        store_dataset(*paths, memory_mb=64)
    assert {path.name for path in tmp_path.iterdir()} == {"rows.parquet", "texts.parquet", "out"}
    np.testing.assert_array_equal(open_stored(tmp_path / "out").histories.values, before)
    with pytest.raises(BundleError, match="exists and is no stored data set"):
        store_dataset(*paths[:2], tmp_path)


def test_a_full_disk_is_one_error(tmp_path, monkeypatch):
    rows, texts = make_tables()
    rows.to_parquet(tmp_path / "rows.parquet")
    texts.to_parquet(tmp_path / "texts.parquet")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ArrayWriter, "append", fail)
    with pytest.raises(BundleError, match=r"out: cannot be written \(No space left on device\); free space"):
        store_dataset(tmp_path / "rows.parquet", tmp_path / "texts.parquet", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"rows.parquet", "texts.parquet"}


def test_damage_is_found_when_opened(tmp_path):
    rows, texts = make_tables()
    rows.to_parquet(tmp_path / "rows.parquet")
    texts.to_parquet(tmp_path / "texts.parquet")
    with pytest.raises(DataError, match="stored.json: no such file; write it again with lora-rec store"):
        open_stored(tmp_path)
    with pytest.warns(UserWarning, match="repeat a user"):
        stored = store_dataset(tmp_path / "rows.parquet", tmp_path / "texts.parquet", tmp_path / "out")
    others = ["x", *stored.item_ids]
    assert stored.find_items_of(others).tolist() == list(range(1, 26))
    with pytest.raises(DataError, match="1 items are not in the bundle, e.g. '29'"):
        stored.find_items_of(others[2:])
    with (tmp_path / "out" / "values.npy").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="values.npy: not the 4,928 bytes that were written"):
        open_stored(tmp_path / "out")


def test_texts_are_a_sequence():
    column = pa.chunked_array([["a", "b"], [], ["c"]], pa.large_string())
    texts = Texts(column)
    assert (len(texts), texts[2], texts[-1], texts[1:3], list(texts)) == (
        3,
        "c",
        "c",
        ["b", "c"],
        ["a", "b", "c"],
    )
    assert texts[2:1] == []
    with pytest.raises(ValueError, match="in their order alone"):
        texts[::2]


def test_an_array_is_written_piece_by_piece(tmp_path):
    with ArrayWriter(tmp_path / "a.npy", np.int64) as writer:
        for piece in ([1, 2], [], [3]):
            writer.append(np.array(piece))
    assert np.load(tmp_path / "a.npy").tolist() == [1, 2, 3]


def test_a_parquet_of_large_row_groups_is_read_in_batches(tmp_path):
    rows, texts = make_tables()
    pq.write_table(
        pa.Table.from_pandas(rows, preserve_index=False), tmp_path / "rows.parquet", row_group_size=600
    )
    texts.to_parquet(tmp_path / "texts.parquet")
    seen = []

    def count(blocks, what):
        for block in blocks:
            seen.append((what, len(block[2])) if isinstance(block, tuple) else (what, 0))
            yield block

    with pytest.warns(UserWarning, match="repeat a user"):
        store_dataset(
            tmp_path / "rows.parquet",
            tmp_path / "texts.parquet",
            tmp_path / "out",
            memory_mb=64,
            progress=count,
        )
    of_rows = [n for what, n in seen if what == "looking at interactions"]
    assert max(of_rows) == 20
    assert sum(of_rows) == 600
    assert {"parting interactions", "sorting parts", "looking at items", "writing items"} < {
        w for w, _ in seen
    }


@pytest.mark.parametrize(("kind", "mark"), [("csv", ","), ("tsv", "\t")])
def test_a_quote_that_takes_in_rows_is_refused_in_columns_that_are_not_stored(tmp_path, kind, mark):
    make_tables()[1].to_parquet(tmp_path / "items.parquet")
    lines = [mark.join(["user_id", "item_id", "review"])]
    lines += [mark.join([str(n), "5", '"Great' if n in (3, 8) else "fine"]) for n in range(12)]
    (tmp_path / f"log.{kind}").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"row 3: the quote that opens review 'Great.*' takes in the rows"):
        store_dataset(
            tmp_path / f"log.{kind}", tmp_path / "items.parquet", tmp_path / "out", time_column=None
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user_id", pa.array([1.0, np.inf]), "interactions.user_id: ids of type float"),
        ("timestamp", pa.array([1, 2], pa.duration("s")), "2 rows where the cell is no time"),
        ("timestamp", pa.array([1, 2**64 - 1], pa.uint64()), "1 row where the cell is no time"),
    ],
)
def test_numbers_that_are_too_large_and_durations_are_named(tmp_path, column, values, message):
    _, items = make_tables()
    columns = {"user_id": [1, 2], "item_id": [5, 6], "timestamp": [1, 2]} | {column: values}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    items.to_parquet(tmp_path / "items.parquet")
    for read in (load_dataset, lambda *tables: store_dataset(*tables, tmp_path / "out")):
        with pytest.raises(DataError, match=message if read is not load_dataset else column):
            read(tmp_path / "log.parquet", tmp_path / "items.parquet")
