import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import SafetensorError
from safetensors.numpy import save_file
from tiny import rewrite

import lora_rec
from lora_rec.bundle import (
    check_output,
    list_files,
    move_folder,
    read_unreplaced,
    replace_file,
    rewrite_manifest,
    write_bundle,
    write_folder,
)
from lora_rec.data.lists import Lists
from lora_rec.errors import BundleError, DataError
from lora_rec.lock import LOCK, FolderLock
from lora_rec.schema import CATEGORY_STRATEGIES, STRATEGIES

SYSTEMS = {
    "popularity",
    "item_cosine",
    "ease",
    "frozen_towers",
    "trained_towers",
    "ranking_head",
    "ranking_head_diverse",
}


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


def test_what_a_bundle_holds(bundle):
    assert set(list_files(bundle)) == {
        "bundle.json",
        "diversity.json",
        "factor_vectors.npy",
        "head.safetensors",
        "item_tower/adapter_config.json",
        "item_tower/adapter_model.safetensors",
        "item_vectors.npy",
        "items.json",
        "metrics.json",
        "pictures/diversity.png",
        "popularity.npy",
        "projections.safetensors",
        "recipe.yaml",
        "similarity_vectors.npy",
        "user_tower/adapter_config.json",
        "user_tower/adapter_model.safetensors",
    }
    metrics = json.loads((bundle / "metrics.json").read_text())
    assert SYSTEMS <= set(metrics)
    assert {"recall@10", "ndcg@10", "ild@10", "coverage@10"} <= set(metrics["ease"])


def test_no_path_of_this_machine_in_any_text_file(bundle, models, tables):
    texts = {
        name: (bundle / name).read_text() for name in list_files(bundle) if name.endswith((".json", ".yaml"))
    }
    assert len(texts) == 7
    for name, text in texts.items():
        for folder in (models["bert"].parent, tables, bundle.parent, os.getcwd()):
            assert str(folder) not in text, name
    assert yaml.safe_load(texts["recipe.yaml"])["user_tower"]["backbone"] == "tiny-bert"


def test_the_obvious_answer(bundle):
    # The first 20 items are one cluster: by luck, all of 5 items would be from it in 1 of 32 lists.
    for history, cluster in ((["i3", "i5", "i7"], 0), (["i23", "i25", "i31"], 1)):
        items = lora_rec.load(bundle).recommend(history, k=5)
        assert [int(item.item_id[1:]) // 20 for item in items] == [cluster] * 5
        assert not {item.item_id for item in items} & set(history)
        assert [item.rank for item in items] == [1, 2, 3, 4, 5]


def test_many_at_once_equal_one_by_one(bundle):
    rec = lora_rec.load(bundle)
    histories = {"a": ["i1", "i2"], "b": ["i30"], "c": ["i30", "i4", "i9"]}
    for diversity in (0.0, 0.5):
        table = rec.recommend_users(histories, k=4, diversity=diversity)
        assert table.to_columns()["user_id"] == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
        for user, row in zip(histories, table.rows, strict=True):
            alone = rec.recommend(histories[user], k=4, diversity=diversity)
            assert [item.item_id for item in row] == [item.item_id for item in alone]


def test_somebody_new_gets_what_most_take(bundle):
    rec = lora_rec.load(bundle)
    items = rec.recommend([], k=40, explain=True)
    assert len(items) == 40
    assert all(item.explanation.parts["linear"] == 0 for item in items)
    assert sum(items[0].explanation.parts.values()) == pytest.approx(items[0].score, abs=1e-4)
    assert items[0].explanation.in_one_line()
    scores = rec.head.scores(Lists.from_arrays([[]]))[0]
    assert [item.item_id for item in items] == [rec.item_ids[i] for i in np.argsort(-scores, kind="stable")]
    for strategy in STRATEGIES:
        if strategy not in CATEGORY_STRATEGIES:
            assert len(rec.recommend([], k=5, diversity=0.5, strategy=strategy)) == 5


def test_the_linear_part_alone_ranks_by_popularity_for_somebody_new(bundle):
    rec = lora_rec.load(bundle)
    rec = dataclasses.replace(rec, _head=dataclasses.replace(rec.head, sequence=None, recent=None))
    known = np.delete(np.arange(40), rec.head.new_items.items)
    scores = rec.head.scores(Lists.from_arrays([[3], []]))
    assert (scores[1, known] == rec.spaces.popularity[known]).all() and scores[1].std() > 0
    assert (scores[0] == rec.head.scores(Lists.from_arrays([[3]]))[0]).all()
    for item in rec.recommend([], k=40, explain=True):
        assert sum(item.explanation.parts.values()) == pytest.approx(item.score, abs=1e-4)


def test_what_is_no_longer_sold_may_be_skipped_with_its_strength(bundle):
    rec = lora_rec.load(bundle)
    found = rec.recommend(["i3", "gone", "i25"], strengths=[1, 9, 5], skip_unknown=True)
    assert found == rec.recommend(["i3", "i25"], strengths=[1, 5])
    assert rec.recommend(["gone"], skip_unknown=True) == rec.recommend([])
    with pytest.raises(DataError, match="is one string; give a list"):
        rec.recommend("i3", skip_unknown=True)


def test_unknown_histories(bundle):
    rec = lora_rec.load(bundle)
    with pytest.raises(
        DataError, match=r"history: unknown item id 'i1O' \(nearest: .*i1.*\); the catalogue has 40 items"
    ):
        rec.recommend(["i3", "i1O"])
    with pytest.raises(DataError, match="is one string; give a list"):
        rec.recommend("i3")
    with pytest.raises(ValueError, match="k: 0 is below 1"):
        rec.recommend(["i3"], k=0)


def test_the_item_taken_most_often_decides(bundle):
    rec = lora_rec.load(bundle)
    for strengths, cluster in (([1000, 1], 0), ([1, 1000], 1)):
        items = rec.recommend(["i3", "i23"], k=5, strengths=strengths)
        assert [int(item.item_id[1:]) // 20 for item in items].count(cluster) > 2
    with pytest.raises(DataError, match="strengths: 1 values where 2 are needed"):
        rec.recommend(["i3", "i23"], strengths=[1])
    with pytest.raises(DataError, match="strengths: user 'b' is missing"):
        rec.recommend_users({"a": ["i3"], "b": ["i4"]}, strengths={"a": [2]})
    with pytest.raises(DataError, match="strengths of a: 2 values where 1 are needed"):
        rec.recommend_users({"a": ["i3"], "b": ["i4", "i5"]}, strengths={"a": [2, 500], "b": [1]})


def test_a_changed_or_missing_file_is_named(copy):
    vectors = copy / "item_vectors.npy"
    data = bytearray(vectors.read_bytes())
    data[-1] ^= 1
    vectors.write_bytes(data)
    with pytest.raises(BundleError, match=r"item_vectors.npy: changed since the bundle was written"):
        lora_rec.load(copy)
    vectors.unlink()
    with pytest.raises(BundleError, match=r"item_vectors.npy: missing; get the bundle again"):
        lora_rec.load(copy)


ITEMS = {"ids": [f"i{n}" for n in range(40)], "fields": {"title": ["x"] * 40}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("head.safetensors", b"xx"),
        ("items.json", b"[]"),
        ("items.json", json.dumps(ITEMS | {"fields": []}).encode()),
        ("items.json", json.dumps(ITEMS | {"ids": list(range(40))}).encode()),
        ("items.json", json.dumps(ITEMS | {"ids": ["i1"] * 40}).encode()),
        ("item_vectors.npy", b"x"),
        ("bundle.json", {"left_out": None}),
        ("bundle.json", {"left_out": ["head"]}),
    ],
)
def test_a_file_with_the_right_hash_and_the_wrong_content_is_one_error(bundle, tmp_path, name, content):
    def change(place):
        if name == "bundle.json":
            manifest = json.loads((place / name).read_text()) | content
            content_of = json.dumps(manifest).encode()
        (place / name).write_bytes(content_of if name == "bundle.json" else content)

    with pytest.raises(BundleError, match="get the bundle again"):
        lora_rec.load(rewrite(bundle, tmp_path / "changed", change))


def test_a_newer_format_and_no_bundle(copy, tmp_path):
    manifest = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(manifest | {"format_version": 99}))
    with pytest.raises(BundleError, match="format version 99, but this lora_rec reads up to 2"):
        lora_rec.load(copy)
    with pytest.raises(BundleError, match="no bundle here"):
        lora_rec.load(tmp_path / "nothing")


def test_a_bundle_from_before_trade_offs_and_categories_loads(copy):
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["ranking"] = {"strategy": "mmr", "n_candidates": 20}
    (copy / "bundle.json").write_text(json.dumps(manifest))
    rec = lora_rec.load(copy)
    assert rec.categories is None
    assert rec.recommend(["i3"], k=5) == rec.recommend(["i3"], k=5, diversity=0)


def test_a_run_keeps_its_categories(make_bundle):
    ranking = {"strategy": "calibrated", "category_field": "title", "category_separator": " "}
    rec = lora_rec.load(make_bundle("categories", ranking=ranking))
    assert rec.manifest.ranking.strategy == "calibrated"
    assert {"war", "love"} < set(rec.categories.names)
    assert "ranking_head_diverse" in rec.metrics


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is no bundle; name another folder"):
        check_output(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
def test_a_failed_write_leaves_the_old_bundle_and_nothing_else(copy, kind):
    manifest = lora_rec.load(copy).manifest

    def fill(folder):
        (folder / "items.json").write_text("half")
        raise kind("No space left on device")

    with pytest.raises(BundleError, match="cannot be written .No space left on device.; free space, or"):
        write_bundle(copy, manifest, fill)
    assert os.listdir(copy.parent) == [copy.name]
    assert lora_rec.load(copy).item_ids


def test_a_failed_replacement_puts_the_old_bundle_back(copy, monkeypatch):
    manifest, rename = lora_rec.load(copy).manifest, os.rename

    def fail_on_the_new_one(source, target):
        if ".tmp-" in str(source):
            raise OSError("no space left")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_on_the_new_one)
    monkeypatch.setattr("lora_rec.bundle._exchange", lambda one, other: False)  # as elsewhere than on Linux
    with pytest.raises(BundleError, match=r"cannot be replaced .*; the result is whole and lies in"):
        write_bundle(copy, manifest, lambda folder: (folder / "items.json").write_text("{}"))
    (whole,) = (name for name in os.listdir(copy.parent) if name != copy.name)
    assert sorted(os.listdir(copy.parent / whole / copy.name)) == ["bundle.json", "items.json"]
    assert lora_rec.load(copy).item_ids


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_folder_takes_the_place_of_an_older_one(tmp_path, monkeypatch, in_one_step):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if in_one_step:  # then there is no moment without either
        monkeypatch.setattr(os, "rename", None)
    else:
        monkeypatch.setattr("lora_rec.bundle._exchange", lambda one, other: False)
    move_folder(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in tmp_path.rglob("*")] == ["old", "new"]


def test_what_killed_runs_began_is_removed_and_what_others_write_is_not(tmp_path):
    killed, whole, written = (tmp_path / f".out.tmp-{name}" for name in ("killed", "whole", "written"))
    for folder in (killed, whole, written):
        folder.mkdir()
        (folder / "half").write_text("x")
    (killed / LOCK).touch()
    lock = FolderLock(written, error=BundleError)
    write_folder(tmp_path / "out", lambda folder: (folder / "a").write_text("a"))
    lock.release()
    assert os.listdir(tmp_path / "out") == ["a"]
    assert {path.name for path in tmp_path.iterdir()} == {"out", whole.name, written.name}


def test_a_write_that_is_killed_leaves_what_the_next_one_removes(tmp_path):
    code = (
        "import os, pathlib\n"
        "from lora_rec.bundle import write_folder\n"
        "write_folder(pathlib.Path('out'), lambda folder: os._exit(9))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path, env=environment)
    assert len(list(tmp_path.glob(".out.tmp-*"))) == 1
    for _ in range(2):  # the second takes the place of the first
        write_folder(tmp_path / "out", lambda folder: (folder / "a").write_text("a"))
        assert os.listdir(tmp_path) == ["out"]
        assert os.listdir(tmp_path / "out") == ["a"]


def test_the_umask_decides_who_may_read(tmp_path):
    before = os.umask(0o077)
    try:
        write_folder(tmp_path / "mine", lambda folder: replace_file(folder / "a.html", b"histories"))
    finally:
        os.umask(before)
    write_folder(tmp_path / "all", lambda folder: save_file({"a": np.ones(1)}, str(folder / "a.safetensors")))
    assert (tmp_path / "all" / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~before
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "mine" / "a.html").stat().st_mode & 0o777 == 0o600


def test_a_place_where_a_disk_is_mounted_is_refused_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "out")
    with pytest.raises(BundleError, match="out is where a disk is mounted, and .* name one in it"):
        check_output(tmp_path / "out")


def test_the_folder_one_stands_in_is_a_place_for_a_bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_output(".") == tmp_path.resolve()


def test_a_link_is_followed_to_the_folder_that_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert check_output(tmp_path / "out") == tmp_path / "disk"


def test_a_file_that_cannot_be_replaced_stays_and_the_error_says_what_to_do(copy, monkeypatch):
    manifest = lora_rec.load(copy).manifest
    before = sorted(os.listdir(copy))

    def fail(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(BundleError, match=r"bundle.json: cannot be written \(No space .*copy the bundle"):
        rewrite_manifest(copy, manifest)
    assert sorted(os.listdir(copy)) == before
    assert lora_rec.load(copy).item_ids


def test_the_light_half_never_imports_torch(bundle):
    code = (
        "import sys, lora_rec\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        f"rec = lora_rec.load({str(bundle)!r})\n"
        "print([i.item_id for i in rec.recommend(['i3'], k=3) + rec.recommend(['i3'], k=3, diversity=0.5)])\n"
        "heavy = {'torch', 'transformers', 'peft', 'accelerate', 'pandas', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    rec = lora_rec.load(bundle)
    lists = rec.recommend(["i3"], k=3) + rec.recommend(["i3"], k=3, diversity=0.5)
    assert result.stdout.strip() == str([item.item_id for item in lists])


def test_a_bundle_that_is_replaced_while_it_is_read_is_read_again(tmp_path):
    file = tmp_path / "bundle.json"
    file.write_text("first")

    def read():
        found = file.read_text()
        if found == "first":
            file.write_text("second")  # the parts that are read now are the next bundle's
        elif found == "second":
            file.write_text("third")
            raise BundleError("a file differs from its digest")
        return found

    assert read_unreplaced(tmp_path, read) == "third"

    def always():
        file.write_text(file.read_text() + "x")

    with pytest.raises(BundleError, match="replaced again and again while it was read"):
        read_unreplaced(tmp_path, always)


def test_a_history_may_be_an_iterator(bundle):
    rec = lora_rec.load(bundle)
    expected = rec.recommend(["i3", "i5"], k=3)
    assert rec.recommend(map(str, ["i3", "i5"]), k=3) == expected
    assert rec.recommend(iter(["i3", "i5"]), k=3, skip_unknown=True, strengths=[1, 1]) == expected
    with pytest.raises(ValueError, match=r"k: 3.0 is no whole number"):
        rec.recommend(["i3"], k=3.0)


def test_a_fingerprint_knows_the_texts(bundle):
    rec = lora_rec.load(bundle)
    other = dataclasses.replace(rec, item_fields=rec.item_fields | {"genre": ["war"] * 40})
    assert other.fingerprint != rec.fingerprint
