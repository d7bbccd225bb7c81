import numpy as np
import pandas as pd
import pytest

from lora_rec.data import load_dataset
from lora_rec.errors import DataError


def frames(**columns):
    interactions = {
        "user_id": [1, 2, 3],
        "item_id": [7, 8, 7],
        "timestamp": [1, 2, 3],
        "rating": [1.0, 2.0, 3.0],
    }
    items = {"item_id": [7, 8], "title": ["a", "b"]}
    for name, values in columns.items():
        table = items if name.startswith("items_") else interactions
        table[name.removeprefix("items_")] = values
    return pd.DataFrame(interactions), pd.DataFrame(items)


def message_for(interactions, items, **options):
    with pytest.raises(DataError) as caught:
        load_dataset(interactions, items, rating_column="rating", **options)
    return str(caught.value)


def mixed(*values):
    return pd.Series(values, dtype=object)


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (
            {"item_id": [7, 9, 99]},
            "interactions.item_id: 2 rows with an item that the item table lacks (row 1: 9, row 2: 99); add "
            "the items to the item table or drop those rows",
        ),
        (
            {"item_id": ["m1", "m2", "m1"]},
            "interactions.item_id: 3 rows with an item that the item table lacks (row 0: 'm1', row 1: 'm2', "
            "row 2: 'm1'); the item table has ids like ['7', '8']: do both use the same ids?",
        ),
        (
            {"item_id": [7.0, np.nan, 8.0]},
            "interactions.item_id: 1 row with an empty id (row 1: nan); fill in the ids or drop those rows",
        ),
        (
            {"user_id": ["a", "", " "]},
            "interactions.user_id: 2 rows with an empty id (row 1: '', row 2: ' '); fill in the ids or drop "
            "those rows",
        ),
        (
            {"user_id": mixed(1, 2, "abc")},
            "interactions.user_id: ids of mixed types int and str (row 0: 1, row 2: 'abc'); give whole "
            "numbers or strings, one of the two",
        ),
        (
            {"user_id": mixed(318.0, "318", "318")},
            "interactions.user_id: ids of mixed types float and str (row 0: 318.0, row 1: '318'); give whole "
            "numbers or strings, one of the two",
        ),
        (
            {"user_id": [1.0, 1.5, 2.0]},
            "interactions.user_id: ids of type float (row 1: 1.5); give whole numbers or strings, "
            "one of the two",
        ),
        (
            {"timestamp": [1.0, np.nan, 2.0]},
            "interactions.timestamp: 1 row without a time (row 1); fill in the times or drop those rows",
        ),
        (
            {"timestamp": ["2020-01-01", "soon", "2020-01-02"]},
            "interactions.timestamp: 1 row where the cell is no time (row 1: 'soon'); give unix seconds or "
            "ISO 8601 dates",
        ),
        (
            {"timestamp": ["1", "2", "soon"]},
            "interactions.timestamp: 1 row where the cell is no time (row 2: 'soon'); give unix seconds or "
            "ISO 8601 dates",
        ),
        (
            {"timestamp": ["2020-01-01 10:00:00 UTC", "04/07/2023 10:00", "2020-01-02"]},
            "interactions.timestamp: 1 row where the cell is no time (row 1: '04/07/2023 10:00'); is 4/7 in"
            " July or in April? Write ISO 8601, with pandas.to_datetime and its dayfirst",
        ),
        (
            {"rating": ["5", "good", "1"]},
            "interactions.rating: 1 row where the cell is no number (row 1: 'good'); give finite numbers",
        ),
        (
            {"rating": [1.0, np.inf, np.nan]},
            "interactions.rating: 1 row without a number (row 2); fill in the numbers or drop those rows",
        ),
        (
            {"items_item_id": [7, 7]},
            "items.item_id: 1 row with an item that an earlier row has (row 1: 7); keep one row per item",
        ),
        (
            {"items_item_id": ["7", None]},
            "items.item_id: 1 row with an empty id (row 1: nan); fill in the ids or drop those rows",
        ),
    ],
)
def test_each_problem_says_where_what_and_what_to_do(columns, line):
    assert f"  {line}\n" in message_for(*frames(**columns))


def test_a_missing_column_names_the_nearest_and_all():
    interactions, items = frames()
    message = message_for(interactions.rename(columns={"user_id": "userId"}), items)
    assert message == (
        "data: 1 problem\n"
        "  interactions.user_id: no such column; did you mean 'userId'? "
        "(columns: userId, item_id, timestamp, rating)"
    )


def test_a_missing_text_column():
    message = message_for(*frames(), text_columns=["titel"])
    assert "  items.titel: no such column; did you mean 'title'? (columns: item_id, title)" in message


def test_columns_that_are_there_twice():
    interactions, items = frames()
    items.columns = ["item_id", "item_id"]
    assert "  items: columns ['item_id'] are there twice; keep one of each" in message_for(
        interactions, items
    )


def test_tables_without_rows_or_columns():
    interactions, items = frames()
    message = message_for(interactions.iloc[:0], pd.DataFrame())
    assert message.splitlines() == [
        "data: 2 problems",
        "  interactions: a header and no rows; give at least one row",
        "  items: an empty table; give a table with a header and rows",
    ]


def test_all_problems_come_in_one_error():
    interactions, items = frames(
        user_id=mixed(1, 2, "abc"),
        item_id=[7, 9, 7],
        timestamp=[1.0, np.nan, 2.0],
        rating=["5", "good", None],
        items_item_id=[7, 7],
    )
    lines = message_for(interactions, items, text_columns=["plot"]).splitlines()
    assert lines[0] == "data: 7 problems; put them right or drop those rows"
    assert [line.split(": ")[0].strip() for line in lines[1:-1]] == [
        "interactions.user_id",
        "interactions.timestamp",
        "interactions.rating",
        "interactions.rating",
        "items.plot",
        "items.item_id",
        "interactions.item_id",
    ]
    assert lines[-1] == "  (rows are counted from 0, without the header)"


def test_a_missing_file_does_not_hide_the_other_tables_problems(tmp_path):
    interactions, _ = frames(rating=[1, np.nan, 2])
    lines = message_for(interactions, tmp_path / "items.csv").splitlines()
    assert lines[1] == f"  items: no file {tmp_path / 'items.csv'}; check the path"
    assert lines[2].startswith("  interactions.rating: 1 row without a number (row 1);")


def test_three_examples_are_enough():
    n = 2000
    interactions = pd.DataFrame({"user_id": 1, "item_id": range(n), "timestamp": 1, "rating": 1})
    message = message_for(interactions, pd.DataFrame({"item_id": [0, 1]}))
    assert "1,998 rows with an item that the item table lacks (row 2: 2, row 3: 3, row 4: 4); add" in message
