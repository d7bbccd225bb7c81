import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lora_rec
from lora_rec.cli import main
from lora_rec.data import load_dataset
from lora_rec.data.store import store_dataset
from lora_rec.errors import DataError
from lora_rec.export import all_users
from lora_rec.export.all_users import recommend_all
from lora_rec.export.blocks import FINISHED, SETTINGS, Blocks
from lora_rec.export.catalog_vectors import write_vectors
from lora_rec.rank import head


@pytest.fixture(scope="module")
def stored(tables, tmp_path_factory):
    return store_dataset(tables / "clicks.csv", tables / "items.csv", tmp_path_factory.mktemp("s") / "stored")


VECTORS = np.random.default_rng(0).standard_normal((23, 4)).astype(np.float32)
SHAPE = {"n_items": 23, "width": 4, "items_at_once": 5}


class Killed(BaseException):
    pass


def encoder(calls, *, dies_at=None, vectors=VECTORS):
    def encode_block(start, stop):
        if start == dies_at:
            raise Killed
        calls.append(start)
        return vectors[start:stop]

    return encode_block


def test_vectors_go_on_behind_the_blocks_that_are_finished(tmp_path):
    output, calls = tmp_path / "vectors.npy", []
    with pytest.raises(Killed):
        write_vectors(output, encoder(calls, dies_at=15), made_of={"items": "a"}, **SHAPE)
    assert calls == [0, 5, 10]
    assert not output.exists()
    written = write_vectors(output, encoder(calls), made_of={"items": "a"}, **SHAPE)
    assert calls == [0, 5, 10, 15, 20]
    assert isinstance(written, np.memmap)
    np.testing.assert_array_equal(written, VECTORS)
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.npy"]


def test_blocks_are_not_those_of_a_run_that_was_killed_while_it_cleared(tmp_path, monkeypatch):
    output, calls, unlink = tmp_path / "vectors.npy", [], Path.unlink
    with pytest.raises(Killed):
        write_vectors(output, encoder(calls, dies_at=15), made_of={"items": "a"}, **SHAPE)

    def dies_behind_the_settings(path, **options):
        unlink(path, **options)
        raise Killed

    settings = tmp_path / ".vectors.npy.writing" / SETTINGS
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda folder: iter([settings]))  # they happen to come first
        patch.setattr(Path, "unlink", dies_behind_the_settings)
        with pytest.raises(Killed):
            write_vectors(output, encoder([], vectors=-VECTORS), made_of={"items": "b"}, **SHAPE)
    written = write_vectors(output, encoder([], vectors=-VECTORS), made_of={"items": "b"}, **SHAPE)
    np.testing.assert_array_equal(written, -VECTORS)


def test_a_damaged_block_and_a_cut_note_are_done_again(tmp_path):
    output, calls = tmp_path / "vectors.npy", []
    with pytest.raises(Killed):
        write_vectors(output, encoder(calls, dies_at=20), made_of={"items": "a"}, **SHAPE)
    folder = tmp_path / ".vectors.npy.writing"
    with (folder / "vectors.npy").open("r+b") as file:
        file.seek(-4 * 4 * 23 + 4 * 4 * 7, 2)  # in the second block
        file.write(b"\xff")
    notes = folder / FINISHED
    notes.write_text(notes.read_text()[:-9])  # of the fourth block
    calls.clear()
    with pytest.raises(Killed):
        write_vectors(output, encoder(calls, dies_at=15), made_of={"items": "a"}, **SHAPE)
    assert calls == [5]
    (folder / "vectors.npy").write_bytes(b"\x93NUMPY")  # as a run leaves it that is killed when it makes it
    calls.clear()
    written = write_vectors(output, encoder(calls), made_of={"items": "a"}, **SHAPE)
    assert calls == [0, 5, 10, 15, 20]
    np.testing.assert_array_equal(written, VECTORS)


def test_blocks_of_other_things_are_not_used(tmp_path, caplog):
    output, calls = tmp_path / "vectors.npy", []
    with pytest.raises(Killed):
        write_vectors(output, encoder(calls, dies_at=10), made_of={"items": "a"}, **SHAPE)
    written = write_vectors(output, encoder(calls, vectors=-VECTORS), made_of={"items": "b"}, **SHAPE)
    np.testing.assert_array_equal(written, -VECTORS)
    assert "begun with other settings or inputs; it is begun anew" in caplog.text


def test_vectors_of_the_wrong_shape_or_place(tmp_path):
    with pytest.raises(ValueError, match=r"encode_block: shape \(5, 3\) for 5 by 4"):
        write_vectors(tmp_path / "v.npy", lambda a, b: VECTORS[a:b, :3], made_of={}, **SHAPE)
    with pytest.raises(DataError, match="v.bin: is no .npy file; name one"):
        write_vectors(tmp_path / "v.bin", encoder([]), made_of={}, **SHAPE)


def rows_of(folder):
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def expected_rows(rec, histories, **settings):
    table = rec.recommend_users(histories, **settings)
    names = ("rank", "item_id", "title")
    return [
        {"user_id": user} | {name: getattr(item, name) for name in names}
        for user, items in zip(table.user_ids, table.rows, strict=True)
        for item in items
    ]


def without_scores(rows):
    return [{name: value for name, value in row.items() if name != "score"} for row in rows]


def histories_of(tables):
    dataset = load_dataset(tables / "clicks.csv", tables / "items.csv")
    return {
        str(user): dataset.item_ids[dataset.items[dataset.users == place]].tolist()
        for place, user in enumerate(dataset.user_ids)
    }


def test_lists_of_all_users_are_those_of_each(bundle, tables, stored, tmp_path):
    rec, histories = lora_rec.load(bundle), histories_of(tables)
    done = recommend_all(rec, stored, tmp_path / "lists", k=3, users_at_once=25)
    assert (done.n_users, done.n_rows, done.n_blocks, done.n_kept) == (60, 180, 3, 0)
    assert without_scores(rows_of(tmp_path / "lists")) == expected_rows(rec, histories, k=3)
    pq.write_table(
        pa.table({"user_id": list(histories), "history": list(histories.values())}), tmp_path / "u.parquet"
    )
    settings = {"k": 3, "diversity": 0.4, "strategy": "msd"}
    recommend_all(rec, tmp_path / "u.parquet", tmp_path / "lists", users_at_once=7, **settings)
    assert without_scores(rows_of(tmp_path / "lists")) == expected_rows(rec, histories, **settings)
    assert {path.name for path in tmp_path.iterdir()} == {"lists", "u.parquet"}
    names = {path.name for path in (tmp_path / "lists").iterdir()}
    assert names == {"_lists.json", *(f"lists-{block:06d}.parquet" for block in range(9))}


def test_lists_go_on_behind_the_blocks_that_are_finished(bundle, stored, tmp_path, monkeypatch):
    rec = lora_rec.load(bundle)
    original, calls = all_users.rank_block, []

    def dies_at_the_third(recommender, users, histories, **settings):
        calls.append(users[0].as_py())
        if len(calls) == 3:
            raise Killed
        return original(recommender, users, histories, **settings)

    monkeypatch.setattr(all_users, "rank_block", dies_at_the_third)
    with pytest.raises(Killed):
        recommend_all(rec, stored, tmp_path / "lists", users_at_once=25)
    assert not (tmp_path / "lists").exists()
    done = recommend_all(rec, stored, tmp_path / "lists", users_at_once=25)
    assert (done.n_kept, done.n_users, len(calls)) == (2, 60, 4)
    assert json.loads((done.folder / "_lists.json").read_text())["recommender"] == rec.fingerprint
    whole = recommend_all(rec, stored, tmp_path / "whole", users_at_once=25)
    assert (whole.n_kept, rows_of(whole.folder)) == (0, rows_of(done.folder))


def die_after_one_block(monkeypatch, recommender, stored, output, **settings):
    """Begins lists of 25 users at once, and leaves the first block."""
    original = all_users.rank_block

    def dies(recommender, users, histories, **settings):
        if users[0].as_py() != next(iter(stored.user_ids)):
            raise Killed
        return original(recommender, users, histories, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(all_users, "rank_block", dies)
        with pytest.raises(Killed):
            recommend_all(recommender, stored, output, users_at_once=25, **settings)


def test_long_arrays_that_differ_in_the_middle_are_other_settings(bundle, stored, tmp_path, monkeypatch):
    rec = lora_rec.load(bundle)
    before = np.array(["i4"] * 1500)
    after = np.where(np.arange(1500) == 700, "i5", before)
    die_after_one_block(monkeypatch, rec, stored, tmp_path / "lists", exclude=before)
    done = recommend_all(rec, stored, tmp_path / "lists", users_at_once=25, exclude=after)
    assert done.n_kept == 0
    assert "i5" not in {row["item_id"] for row in rows_of(done.folder)}


def test_blocks_of_another_bundle_are_not_kept(bundle, stored, tmp_path, monkeypatch):
    rec = lora_rec.load(bundle)
    ranking = dataclasses.replace(rec.manifest.ranking, diversity=0.5)
    other = dataclasses.replace(rec, manifest=dataclasses.replace(rec.manifest, ranking=ranking))
    renamed = rec.with_item_fields({"title": {item: f"new {item}" for item in rec.item_ids}})
    assert len({rec.fingerprint, other.fingerprint, renamed.fingerprint}) == 3
    die_after_one_block(monkeypatch, rec, stored, tmp_path / "lists")
    assert recommend_all(renamed, stored, tmp_path / "lists", users_at_once=25).n_kept == 0


def test_unknown_items_are_skipped_where_that_is_asked_for(bundle, tables, stored, tmp_path):
    rec, gone = lora_rec.load(bundle), "i3"
    small = SimpleNamespace(
        item_ids=[item for item in rec.item_ids if item != gone],
        titles=[title for item, title in zip(rec.item_ids, rec.titles, strict=True) if item != gone],
        fingerprint="without i3",
        rank=lambda histories, k: (
            histories.values[histories.offsets[:-1]][:, None],
            np.ones((len(histories), 1)),
        ),
    )
    with pytest.raises(DataError, match="1 items are not in the bundle, e.g. 'i3'"):
        recommend_all(small, stored, tmp_path / "lists")
    recommend_all(small, stored, tmp_path / "lists", skip_unknown=True)
    firsts = {user: next(i for i in history if i != gone) for user, history in histories_of(tables).items()}
    assert any(history[0] == gone for history in histories_of(tables).values())
    assert {row["user_id"]: row["item_id"] for row in rows_of(tmp_path / "lists")} == firsts


def test_no_users_leave_older_lists_alone(bundle, stored, tmp_path):
    rec = lora_rec.load(bundle)
    before = rows_of(recommend_all(rec, stored, tmp_path / "lists").folder)
    nobody = pa.table({"user_id": pa.array([], pa.string()), "history": pa.array([], pa.list_(pa.string()))})
    pq.write_table(nobody, tmp_path / "u.parquet")
    with pytest.raises(DataError, match="users: there are none"):
        recommend_all(rec, tmp_path / "u.parquet", tmp_path / "lists")
    assert rows_of(tmp_path / "lists") == before


def test_an_unknown_item_is_said_with_file_and_user(bundle, stored, tmp_path):
    table = pa.table({"user_id": ["a", "b", "c"], "history": [["i1"], ["i2"], ["i99"]]})
    pq.write_table(table, tmp_path / "u.parquet")
    rec = lora_rec.load(bundle)
    with pytest.raises(DataError, match="u.parquet rows 2 to 2: history of c: unknown item id 'i99'"):
        recommend_all(rec, tmp_path / "u.parquet", tmp_path / "lists", users_at_once=2)
    pq.write_table(table.rename_columns(["user", "history"]), tmp_path / "v.parquet")
    with pytest.raises(DataError, match=r"users \(v.parquet\).user_id: no such column; did you mean 'user'"):
        recommend_all(rec, tmp_path / "v.parquet", tmp_path / "lists")


@pytest.mark.parametrize("users_at_once", [0, -5])
def test_blocks_of_no_users_leave_the_older_lists(bundle, stored, tmp_path, users_at_once, capsys):
    rec, output = lora_rec.load(bundle), tmp_path / "lists"
    before = rows_of(recommend_all(rec, stored, output, k=2).folder)
    command = ["recommend-all", str(bundle), "--users", str(stored.folder), "--output", str(output)]
    assert main([*command, "--users-at-once", str(users_at_once)]) == 1
    assert f"users_at_once: {users_at_once} users in a block; give 1 or more" in capsys.readouterr().err
    assert rows_of(output) == before


def test_vectors_of_users_are_not_given_to_every_block(bundle, stored, tmp_path):
    rec, vectors = lora_rec.load(bundle), np.zeros((60, 8), np.float32)
    with pytest.raises(DataError, match="user_embeddings: every block would take the first ones"):
        recommend_all(rec, stored, tmp_path / "lists", user_embeddings=vectors)


def test_a_large_catalogue_is_scored_for_fewer_users_at_once(bundle, stored, monkeypatch):
    rec, seen = lora_rec.load(bundle), []
    expected = rec.rank(stored.histories, k=5)[0]
    original = head.RankingHead.scores
    monkeypatch.setattr(head, "SCORES_AT_ONCE", 200)
    monkeypatch.setattr(
        head.RankingHead, "scores", lambda self, h, *rest: seen.append(len(h)) or original(self, h, *rest)
    )
    np.testing.assert_array_equal(rec.rank(stored.histories, k=5)[0], expected)
    assert max(seen) == 5  # of 40 items


def test_the_commands_from_tables_to_lists(bundle, tables, models, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clicks, items = str(tables / "clicks.csv"), str(tables / "items.csv")
    assert main(["store", clicks, "--items", items, "--output", "data"]) == 0
    assert "wrote data: 60 users, 40 items, 540 interactions" in capsys.readouterr().out
    backbone = ["--item-backbone", str(models["llama"])]
    assert main(["encode-items", str(bundle), "--data", "data", "--output", "v.npy", *backbone]) == 0
    assert "wrote v.npy: 40 vectors, 8 wide" in capsys.readouterr().out
    bases = {"user_backbone": str(models["bert"]), "item_backbone": str(models["llama"])}
    towers = lora_rec.load_towers(bundle, **bases)
    rec = lora_rec.load(bundle)
    expected = towers.encode_items(towers.render_items(rec.item_fields))
    np.testing.assert_allclose(np.load("v.npy"), expected, atol=1e-6)
    assert main(["recommend-all", str(bundle), "--users", "data", "--output", "lists", "-k", "4"]) == 0
    assert "wrote lists: 240 items for 60 users\n" in capsys.readouterr().out
    assert without_scores(rows_of(tmp_path / "lists")) == expected_rows(rec, histories_of(tables), k=4)
    assert main(["recommend-all", str(bundle), "--users", "no", "--output", "lists"]) == 1
    assert "users: no file no; check the path" in capsys.readouterr().err


def test_what_a_kill_leaves_beside_lists_is_passed_over(tmp_path):
    with Blocks(tmp_path / "lists", {"a": 1}) as blocks:
        pq.write_table(pa.table({"rank": [1]}), blocks.folder / "block-0.parquet")
        blocks.note(0, "0" * 64)
        names = {path.name for path in blocks.folder.iterdir()}
        assert pq.read_table(blocks.folder).to_pydict() == {"rank": [1]}
        assert len(names) > 2


def test_a_result_that_cannot_be_moved_leaves_the_older_one(tmp_path, monkeypatch):
    target = tmp_path / "lists"
    target.mkdir()
    (target / "old").touch()
    written = Blocks(target, {"k": 1})
    (written.folder / "new").touch()
    rename = os.rename

    def full(source, place):
        if str(place) == str(target) and ".writing" in str(source):
            raise OSError(28, "No space left on device")
        rename(source, place)

    monkeypatch.setattr(os, "rename", full)
    monkeypatch.setattr("lora_rec.bundle._exchange", lambda one, other: False)
    with pytest.raises(DataError, match="lists: cannot be replaced .No space left on device."):
        written.finish(target)
    assert [path.name for path in target.iterdir()] == ["old"]
    monkeypatch.undo()
    written.finish(target)
    assert [path.name for path in target.iterdir()] == ["new"]
