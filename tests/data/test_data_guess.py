import csv
import decimal
import time

import numpy as np
import pandas as pd
import pytest

from lora_rec.data import find_tables, guess_columns, load_dataset
from lora_rec.data.columns import read_numbers
from lora_rec.data.sources import read_table
from lora_rec.errors import DataError
from lora_rec.pipeline.init import suggest_categories

N_ITEMS, N_ROWS = 120, 900
WORDS = np.array("sea quiet tale north garden stone light winter house river".split())


def make(
    *,
    user="user_id",
    item="item_id",
    when="timestamp",
    item_id="item_id",
    title="title",
    user_ids="u{}",
    item_ids="i{}",
    times="seconds",
    **more,
):
    """Two tables of 40 users and 120 items; the names and the forms of ids and times are given."""
    rng = np.random.default_rng(0)
    seconds = np.sort(rng.integers(1_500_000_000, 1_600_000_000, N_ROWS))
    forms = {
        "seconds": seconds,
        "milliseconds": seconds * 1000,
        "text": seconds.astype(str),
        "iso": pd.to_datetime(seconds, unit="s").strftime("%Y-%m-%dT%H:%M:%SZ"),
        "dates": pd.to_datetime(seconds, unit="s"),
        "days": pd.to_datetime(seconds, unit="s").strftime("%Y-%m-%d"),
    }
    ids = lambda pattern, values: [pattern.format(v) if isinstance(pattern, str) else v for v in values]  # noqa: E731
    columns = {
        user: ids(user_ids, rng.integers(1, 41, N_ROWS)),
        item: ids(item_ids, rng.integers(1, 121, N_ROWS)),
    }
    if when:
        columns[when] = forms[times]
    interactions = pd.DataFrame(columns)
    items = pd.DataFrame(
        {
            item_id: ids(item_ids, range(1, 121)),
            title: [" ".join(rng.choice(WORDS, 3)).title() + f" {n}" for n in range(N_ITEMS)],
        }
    )
    for name, values in more.items():
        table, _, column = name.partition("__")
        target = items if table == "items" else interactions
        target[column] = values(rng, len(target)) if callable(values) else values
    return interactions, items


def guessed(interactions, items, **options):
    guess = guess_columns(interactions, items, **options)
    return {column.role: column.column for column in guess.columns}


NAMINGS = [
    {},
    {"user": "userId", "item": "movieId", "item_id": "movieId"},
    {"user": "uid", "item": "iid", "item_id": "id"},
    {"user": "reviewerID", "item": "asin", "item_id": "asin", "when": "unixReviewTime"},
    {"user": "user_id", "item": "parent_asin", "item_id": "parent_asin", "times": "milliseconds"},
    {
        "user": "Customer ID",
        "item": "StockCode",
        "item_id": "StockCode",
        "when": "InvoiceDate",
        "times": "iso",
    },
    {"user": "visitorid", "item": "itemid", "item_id": "itemid", "times": "milliseconds"},
    {"user": "customer", "item": "product", "item_id": "sku", "title": "product_name", "when": "order_date"},
    {
        "user": "member_no",
        "item": "track_id",
        "item_id": "track_id",
        "title": "track_name",
        "when": "played_at",
    },
    {"user": "session_id", "item": "article_id", "item_id": "id", "title": "headline", "times": "days"},
    {"user": "Kundennummer", "item": "Artikelnummer", "item_id": "Artikelnummer", "title": "Bezeichnung"},
    {"user": "usuario_id", "item": "producto_id", "item_id": "id", "title": "titulo", "when": "fecha"},
    {"user": "utilisateur", "item": "film", "item_id": "film", "title": "titre", "when": "horodatage"},
    {"user": "用户ID", "item": "商品ID", "item_id": "商品ID", "title": "商品名称", "when": "时间戳"},
    {"user": "user", "item": "item", "item_id": "id", "times": "dates"},
    {"user": "user", "item": "item", "item_id": "id", "times": "text"},
    {"user": "who", "item": "what", "item_id": "key", "title": "label_text", "when": "x", "times": "iso"},
]


@pytest.mark.parametrize("naming", NAMINGS, ids=lambda naming: naming.get("user", "defaults"))
@pytest.mark.parametrize("numbers", [False, True], ids=["text ids", "number ids"])
def test_usual_names(naming, numbers):
    # As numbers, the users 1 to 40 are among the items 1 to 120, so ids alone cannot tell.
    ids = {"user_ids": None, "item_ids": None} if numbers else {}
    interactions, items = make(**naming, **ids)
    expected = {"user": "user_id", "item": "item_id", "item_id": "item_id", "when": "timestamp"} | naming
    assert guessed(interactions, items) == {
        "user": expected["user"],
        "item": expected["item"],
        "item_id": expected["item_id"],
        "time": expected["when"],
        "rating": None,
    }
    assert guess_columns(interactions, items).texts.title == naming.get("title", "title")


def test_everything_is_sure_where_names_are_usual():
    assert all(column.sure for column in guess_columns(*make()).columns)
    assert not guess_columns(*make(user="who")).user.sure  # the only column left whose ids repeat


def test_shared_ids_weigh_more_than_names():
    interactions, items = make(item="ref", item_id="key", interactions__item_name=lambda r, n: ["a"] * n)
    items["item_id"] = [f"x{n}" for n in range(N_ITEMS)]
    guess = guess_columns(interactions, items)
    assert (guess.item.column, guess.item_id.column) == ("ref", "key")
    assert guess.item.why == "100% of its ids are in key, 100% of those are used"


def test_a_row_number_is_no_item():
    interactions, items = make(item_ids=None, user_ids=None)
    interactions.insert(0, "id", range(1, N_ROWS + 1))
    items["Unnamed: 0"] = range(N_ITEMS)
    assert guessed(interactions, items)["item"] == "item_id"
    assert guessed(interactions, items)["item_id"] == "item_id"


@pytest.mark.parametrize(
    ("name", "values", "rating"),
    [
        ("rating", [1.0, 2.5, 5.0], "rating"),
        ("overall", ["1", "3", "5"], "overall"),
        ("评分", [1, 5, 10], "评分"),
        ("stars", [1, 2, 5], "stars"),
        ("is_click", [0, 1], "is_click"),
        ("score", [0.1234, 77.1, 4000.0], None),
        ("quantity", [1, 7, 480], None),
        ("price", [9.99, 19.5, 2.0], None),
        ("rating", ["good", "bad"], None),
    ],
)
def test_ratings_are_few_small_numbers(name, values, rating):
    tables = make(**{f"interactions__{name}": lambda rng, n: rng.choice(values, n)})
    assert guessed(*tables)["rating"] == rating


def test_what_only_looks_like_a_rating_is_offered_not_taken():
    guess = guess_columns(*make(interactions__mark=lambda rng, n: rng.integers(1, 6, n)))
    assert (guess.rating.column, guess.rating.sure, guess.rating.options) == (None, False, ("mark",))
    assert guess.user.column == "user_id"


def test_of_several_times_the_finest():
    interactions, items = make()
    interactions["date"] = pd.to_datetime(interactions.timestamp, unit="s").dt.strftime("%Y-%m-%d")
    assert guessed(interactions, items)["time"] == "timestamp"


def test_dates_that_the_loader_cannot_read_are_named_by_it():
    interactions, items = make(when="InvoiceDate")
    interactions["InvoiceDate"] = "12/1/2010 8:26"
    guess = guess_columns(interactions, items)
    assert guess.time.column == "InvoiceDate"
    assert guess.time.why == "its name; but the cells are no times"
    with pytest.raises(DataError, match="InvoiceDate: 900 rows where the cell is no time"):
        load_dataset(interactions, items, time_column="InvoiceDate")


def test_dates_and_decimals_of_parquet():
    interactions, items = make(when="t_dat", times="dates")
    interactions["t_dat"] = interactions.t_dat.dt.date
    interactions["rating"] = [decimal.Decimal(n % 5 + 1) for n in range(N_ROWS)]
    found = guessed(interactions, items)
    assert (found["time"], found["rating"]) == ("t_dat", "rating")


@pytest.mark.parametrize(
    ("name", "values", "rating", "why"),
    [
        ("rating", ["5", "1", "N/A"] + ["3"] * 30, "rating", "its name; but no number in"),
        ("liked", ["true", "false"], None, "liked may be one: two answers; write them as 1 and 0"),
        ("label", [True, False], None, "label may be one: two answers"),
        ("stars", ["4,500", "1,000", "3 *"], None, "stars may be one: digits, but the cells are no numbers"),
        ("stars", ["4,5", "1,0", "3,5"], "stars", "its name; 3 values from 1 to 4.5"),
    ],
)
def test_what_is_named_as_a_rating_is_not_dropped_without_a_word(name, values, rating, why):
    interactions, items = make()
    interactions[name] = [values[n % len(values)] for n in range(N_ROWS)]
    guess = guess_columns(interactions, items).rating
    assert guess.column == rating and guess.why.startswith(why)
    assert guess.options == (name,)


@pytest.mark.parametrize("item_ids", ["sku-{}", " {}"])
def test_users_are_not_taken_for_items_whose_ids_do_not_match(item_ids):
    interactions, items = make(user_ids="{}", item_ids="{}")
    interactions["item_id"] = [item_ids.format(n) for n in interactions.item_id]
    guess = guess_columns(interactions, items)
    assert (guess.user.column, guess.item.column, guess.item.sure) == ("user_id", "item_id", False)
    with pytest.raises(DataError, match=r"item that the item table lacks .* do both use the same ids"):
        load_dataset(interactions, items)


def test_mappings_and_bytes_are_no_texts():
    cells = {"related": {"bought": "x"}, "parts": [{"name": "y"}], "raw": b"title"}
    interactions, items = make(**{f"items__{n}": lambda rng, k, v=v: [v] * k for n, v in cells.items()})
    texts = guess_columns(interactions, items).texts
    assert list(texts.kinds) == ["title"]
    assert texts.left_out == dict.fromkeys(cells, "mappings or bytes, not text")


def test_no_times():
    guess = guess_columns(*make(when=None))
    assert (guess.time.column, guess.time.sure) == (None, True)


def test_given_columns_are_kept_and_change_the_rest():
    tables = make(interactions__device_id=lambda rng, n: rng.integers(1, 500, n))
    assert guessed(*tables)["user"] == "user_id"
    given = {"user": "device_id", "time": None}
    assert guessed(*tables, given=given) | {"user": "device_id", "time": None} == guessed(
        *tables, given=given
    )
    with pytest.raises(DataError, match="interactions.usr: no such column"):
        guess_columns(*tables, given={"user": "usr"})


def test_two_alike_columns_are_not_guessed():
    interactions, items = make(
        user="a", interactions__b=lambda rng, n: [f"b{v}" for v in rng.integers(1, 99, n)]
    )
    guess = guess_columns(interactions, items)
    assert (guess.user.column, guess.user.sure) == (None, False)
    assert set(guess.user.options) == {"a", "b"}
    items["second"] = items["item_id"]
    interactions = interactions.rename(columns={"item_id": "ref"})
    guess = guess_columns(interactions, items.rename(columns={"item_id": "first"}))
    assert guess.item_id.column is None
    assert guess.item_id.why == "first and second look alike"


def test_kinds_of_texts():
    long = "A long description of what happens at sea, told by those who came back from it. " * 3
    interactions, items = make(
        items__year=lambda rng, n: rng.integers(1950, 2020, n),
        items__brand=lambda rng, n: rng.choice(["Acme", "Umbrella"], n),
        items__genres=lambda rng, n: rng.choice(["Crime|Drama", "Comedy"], n),
        items__description=[long + str(n) for n in range(N_ITEMS)],
        items__price=lambda rng, n: rng.random(n),
        items__image="https://example.org/a.jpg",
        items__hash=[f"a{n}f9" for n in range(N_ITEMS)],
        items__available=lambda rng, n: rng.choice(["true", "false"], n),
        items__note=None,
        items__tags=[["sea", "north"]] * 60 + [["winter"]] * 60,
    )
    texts = guess_columns(interactions, items).texts
    assert texts.kinds == {
        "title": "title",
        "year": "year",
        "brand": "maker",
        "genres": "category",
        "description": "long",
        "tags": "category",
    }
    assert texts.left_out == {
        "price": "numbers",
        "image": "web addresses",
        "hash": "codes",
        "available": "yes or no",
        "note": "empty",
    }
    chosen = guess_columns(interactions, items, text_columns=["genres", "hash"]).texts
    assert list(chosen.kinds) == ["genres", "hash"]
    assert chosen.title == "genres"


def test_chinese_cells():
    interactions, items = make(title="name", items__分类=["小说", "科幻", "编程", "历史"] * 30)
    items["name"] = [f"三体全集 第{n}部 刘慈欣" for n in range(N_ITEMS)]
    texts = guess_columns(interactions, items).texts
    assert texts.kinds == {"name": "title", "分类": "category"}


def test_chinese_titles_with_digits_are_no_codes():
    interactions, items = make(title="商品名称", items__category=["服装", "鞋子", "配饰"] * 40)
    items["商品名称"] = [f"20{n % 25:02}新款男装纯棉短袖{'红黄蓝绿黑'[n % 5]}色" for n in range(N_ITEMS)]
    assert guess_columns(interactions, items).texts.kinds == {"商品名称": "title", "category": "category"}


@pytest.mark.parametrize(
    ("shared", "kind"), [("artist_name", "maker"), ("category_name", "category")], ids=["artist", "category"]
)
def test_the_name_of_what_items_share_is_no_title(shared, kind):
    interactions, items = make(title="song")
    items[shared] = [f"Someone {n % 12}" for n in range(N_ITEMS)]
    assert guess_columns(interactions, items).texts.kinds == {"song": "title", shared: kind}
    # Where each item has one of its own, items are artists.
    items[shared], items["song"] = items["song"], ["folk", "rock", "fado"] * 40
    assert guess_columns(interactions, items).texts.title == shared


@pytest.mark.parametrize("more", [{}, {"city": lambda rng, n: rng.choice(["Rome", "Oslo", "Bern"], n)}])
def test_ids_that_look_like_times_are_users(more):
    columns = {f"interactions__{name}": values for name, values in more.items()}
    interactions, items = make(when=None, **columns)
    interactions["user_id"] = 1_500_000_000 + 7919 * interactions["user_id"].str[1:].astype(int)
    found = guessed(interactions, items)
    assert (found["user"], found["time"]) == ("user_id", None)


def test_a_single_user_is_one_by_name():
    interactions, items = make()
    assert guessed(interactions.assign(user_id="me"), items)["user"] == "user_id"


@pytest.mark.parametrize("mark", [";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_what_the_header_has_more_of_separates_columns(tmp_path, suffix, mark):
    table = pd.DataFrame({"item_id": ["1", "2"], "price, EUR": ["1,5", "2,25"], "title": ["a, b, c", "d"]})
    table.to_csv(tmp_path / f"items{suffix}", sep=mark, index=False, quoting=csv.QUOTE_NONE)
    read = read_table(tmp_path / f"items{suffix}", name="items")
    pd.testing.assert_frame_equal(read.astype(object), table.astype(object))
    assert read_numbers(read["price, EUR"]).values.tolist() == [1.5, 2.25]


def test_an_error_says_what_was_taken_to_separate_columns(tmp_path):
    (tmp_path / "items.csv").write_text("item_id;price\n1;2;3\n")
    with pytest.raises(DataError, match="cannot be read as csv \\(columns parted by ';', as in its header: "):
        read_table(tmp_path / "items.csv", name="items")


def test_a_log_of_nested_users_is_refused_and_odd_columns_named_like_users_are_passed_over():
    interactions, items = make()
    for name, cell in (("guest", True), ("customer_value", 1.5)):
        odd = interactions.assign(**{name: [cell, *[cell] * (N_ROWS - 1)]})
        assert guess_columns(odd, items).user.column == "user_id"
    nested = interactions.drop(columns="user_id").assign(user=[{"id": 7}] * N_ROWS, session="s")
    with pytest.raises(DataError, match=r"interactions.user: holds mappings, such as \{'id': 7\}; make each"):
        guess_columns(nested, items)
    assert guess_columns(nested, items, given={"user": "session"}).user.column == "session"


@pytest.mark.parametrize(
    ("name", "cells", "found"),
    [
        ("what", ["view", "view", "addToCart", "purchase"], "what (view, addToCart, purchase)"),
        ("event_type", ["a", "a", "b"], "event_type (a, b)"),
        ("feedback", ["dislike", "like", "like"], "feedback (like, dislike)"),
        ("city", ["Rome", "Oslo", "Oslo"], None),
        ("event_type", ["1", "2", "1"], None),
        ("event", [f"e{n}" for n in range(30)], None),
    ],
)
def test_a_column_of_events_is_named(name, cells, found):
    interactions, items = make()
    interactions[name] = [cells[n % len(cells)] for n in range(N_ROWS)]
    events = guess_columns(interactions, items).events
    assert (None if events is None else str(events)) == found


def test_bookkeeping_is_no_text_and_lists_are_known():
    interactions, items = make()
    items["status"] = ["active", "deleted", "active"] * 40
    items["created_by"] = ["ana", "maria", "juan"] * 40
    items["genres"] = [["home", "red"], ["home", "blue"], ["home"]] * 40
    texts = guess_columns(interactions, items).texts
    assert {column for column, why in texts.left_out.items() if why == "bookkeeping, by its name"} == {
        "status",
        "created_by",
    }
    assert texts.lists == {"genres"}
    fields = {"title": [""] * 3, "genres": ["home, red", "home, blue", "home"]}
    assert suggest_categories(fields | {"title": ["a"] * 3}, texts)[1] in (",", None)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ratings.csv", "movies.csv"),
        ("a.csv", "b.csv"),
        ("b.parquet", "a.jsonl"),
        ("orders.tsv", "catalog.csv"),
    ],
)
def test_which_file_is_which(tmp_path, first, second):
    interactions, items = make(item_ids=None, user_ids=None, item="movie", item_id="id")
    interactions.insert(0, "id", range(1, N_ROWS + 1))  # contains the ids of all items
    for name, table in ((first, interactions), (second, items)):
        kind = name.partition(".")[2]
        if kind == "parquet":
            table.to_parquet(tmp_path / name)
        elif kind == "jsonl":
            table.to_json(tmp_path / name, orient="records", lines=True)
        else:
            table.to_csv(tmp_path / name, index=False, sep="\t" if kind == "tsv" else ",")
    (tmp_path / "README.md").write_text("not a table")
    tables = find_tables(tmp_path)
    assert (tables.interactions_path, tables.items_path) == (str(tmp_path / first), str(tmp_path / second))


def test_a_table_of_users_is_neither(tmp_path):
    interactions, items = make(item_ids=None, user_ids=None)
    users = pd.DataFrame({"user_id": range(1, 41), "name": "a b", "city": "c"})
    for name, table in {"a": users, "b": items, "c": interactions}.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    tables = find_tables(tmp_path)
    assert tables.interactions_path == str(tmp_path / "c.csv")
    assert tables.items_path == str(tmp_path / "b.csv")


def test_folders_without_two_tables(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        find_tables(tmp_path / "nope")
    with pytest.raises(DataError, match="holds no table; give --interactions FILE and --items FILE"):
        find_tables(tmp_path)
    make()[0].to_csv(tmp_path / "clicks.csv", index=False)
    with pytest.raises(DataError, match=r"holds 1 tables \(.*clicks.csv\); give --interactions"):
        find_tables(tmp_path)
    make()[0].to_csv(tmp_path / "events.csv", index=False)
    with pytest.raises(DataError, match="cannot tell which file of .* holds the interactions"):
        find_tables(tmp_path)


def test_a_million_rows_are_quick():
    rng = np.random.default_rng(0)
    n = 1_000_000
    interactions = pd.DataFrame(
        {
            "userId": rng.integers(0, 100_000, n).astype(str),
            "movieId": rng.integers(0, 20_000, n).astype(str),
            "rating": rng.integers(1, 6, n).astype(str),
            "timestamp": rng.integers(1_500_000_000, 1_600_000_000, n).astype(str),
        }
    )
    items = pd.DataFrame({"movieId": np.arange(20_000).astype(str), "title": "A film"})
    items["title"] += " " + items["movieId"]
    start = time.perf_counter()
    assert guessed(interactions, items) == {
        "item": "movieId",
        "item_id": "movieId",
        "user": "userId",
        "time": "timestamp",
        "rating": "rating",
    }
    assert time.perf_counter() - start < 15  # 2 s on an idle core
