import subprocess
import sys

import pyarrow as pa
import pytest

import lora_rec
from lora_rec.errors import DataError
from lora_rec.export.all_users import LISTS_SCHEMA, recommend_block

HISTORIES = {"ann": ["i3", "i5"], "bob": ["i23"], "7": ["i1", "i30", "i2"]}


def block(histories=HISTORIES):
    return pa.table({"user_id": list(histories), "history": list(histories.values())})


@pytest.mark.parametrize("settings", [{}, {"diversity": 0.5, "exclude": ["i4"]}])
def test_a_block_holds_the_lists_of_its_users(bundle, settings):
    rec = lora_rec.load(bundle)
    table = recommend_block(rec, block(), k=4, **settings)
    assert table.schema == LISTS_SCHEMA
    expected = [
        {"user_id": user, "rank": item.rank, "item_id": item.item_id, "title": item.title}
        for user, history in HISTORIES.items()
        for item in rec.recommend(history, k=4, **settings)
    ]
    assert table.drop_columns("score").to_pylist() == expected
    scores = [i.score for h in HISTORIES.values() for i in rec.recommend(h, k=4, **settings)]
    assert table.column("score").to_pylist() == pytest.approx(scores)


def test_a_list_may_end_early_and_a_block_may_be_empty(bundle):
    rec = lora_rec.load(bundle)
    everything = [item for item in rec.item_ids if item != "i7"]
    table = recommend_block(rec, block({"ann": everything, "bob": ["i1"]}), k=3)
    assert table.column("user_id").to_pylist() == ["ann", "bob", "bob", "bob"]
    assert table.column("item_id")[0].as_py() == "i7"
    assert recommend_block(rec, table.schema.empty_table().select([]).append_column(
        "user_id", pa.array([], pa.string())).append_column("history", pa.array([], pa.list_(pa.string())))
    ).num_rows == 0  # fmt: skip


def test_somebody_new_and_what_is_gone(bundle):
    rec = lora_rec.load(bundle)
    new = [item.item_id for item in rec.recommend([], k=3)]
    histories = [["i3", "gone"], [], None, ["gone"]]
    table = pa.table({"user_id": ["ann", "bob", "cy", "di"], "history": histories})
    with pytest.raises(DataError, match="history of ann: unknown item id 'gone'"):
        recommend_block(rec, table, k=3)
    lists = recommend_block(rec, table, k=3, skip_unknown=True).to_pylist()
    expected = [item.item_id for item in rec.recommend(["i3"], k=3)] + 3 * new
    assert [row["item_id"] for row in lists] == expected


def test_ids_as_views_of_strings(bundle):
    rec = lora_rec.load(bundle)
    histories = [["i3", "i5"], ["i23"]]
    views = pa.table(
        {
            "user_id": pa.array(["ann", "bob"], pa.string_view()),
            "history": pa.ListArray.from_arrays([0, 2, 3], pa.array(["i3", "i5", "i23"], pa.string_view())),
        }
    )
    plain = pa.table({"user_id": ["ann", "bob"], "history": histories})
    assert recommend_block(rec, views, k=3) == recommend_block(rec, plain, k=3)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"user": ["ann"], "history": [["i1"]]}, "users.user_id: no such column; give user_id and history"),
        ({"user_id": ["ann"], "history": ["i1"]}, "users.history: cells of type string; give lists"),
        ({"user_id": ["ann", None], "history": [["i1"], ["i2"]]}, "users.user_id: no id at place 1"),
        ({"user_id": [1.5], "history": [["i1"]]}, "users.user_id: ids of type double"),
        (
            {"user_id": ["a", "b"], "history": [["i1"], ["i99"]]},
            "history of b: unknown item id 'i99' .nearest",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_user(bundle, table, message):
    with pytest.raises(DataError, match=message):
        recommend_block(lora_rec.load(bundle), pa.table(table))


def test_torch_stays_out(bundle):
    code = (
        "import sys, pyarrow as pa, lora_rec\n"
        "from lora_rec.export.all_users import recommend_block\n"
        f"table = pa.table({{'user_id': [1], 'history': [['i1']]}})\n"
        f"assert recommend_block(lora_rec.load({str(bundle)!r}), table).num_rows == 10\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.string(), 1), pa.list_view(pa.string()), pa.large_list_view(pa.string())]
)
def test_lists_of_any_kind_are_read(bundle, kind):
    rec = lora_rec.load(bundle)
    users, histories = pa.array(["ann", "bob"]), [["i3"], ["i5"]]
    expected = recommend_block(rec, pa.table({"user_id": users, "history": histories}), k=2)
    others = pa.table({"user_id": users, "history": pa.array(histories, kind)})
    assert recommend_block(rec, others, k=2) == expected
    nobody = pa.table({"user_id": users, "history": pa.nulls(2)})
    assert len(recommend_block(rec, nobody, k=2)) == 4
    with pytest.raises(DataError, match="cells of type string; give lists"):
        recommend_block(rec, pa.table({"user_id": users, "history": ["i3", "i5"]}), k=2)


def test_an_unknown_item_behind_somebody_new_is_named(bundle):
    users = pa.table({"user_id": ["new", "ann"], "history": [None, ["i99x"]]})
    with pytest.raises(DataError, match="history of ann: unknown item id 'i99x'"):
        recommend_block(lora_rec.load(bundle), users, k=2)
