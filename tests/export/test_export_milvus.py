"""Items in the embedded Milvus, and over the network in the same behind an address of this machine."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lora_rec
from lora_rec.cli import main
from lora_rec.errors import DataError, LoraRecError
from lora_rec.export.milvus import export_to_milvus, open_milvus
from lora_rec.export.milvus import write as module

pytest.importorskip("milvus_lite", reason="needs pip install 'lora-rec[milvus]'")
pymilvus = pytest.importorskip("pymilvus", reason="needs pip install 'lora-rec[milvus]'")

HISTORIES = [["i3", "i5", "i23"], ["i30"], ["i1", "i2", "i0", "i4"]]
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


@pytest.fixture(scope="module")
def rec(bundle):
    """The tiny bundle, with the words of its titles as categories."""
    found = lora_rec.load(bundle)
    ranking = replace(found.manifest.ranking, category_field="words", category_separator=" ")
    found = replace(found, manifest=replace(found.manifest, ranking=ranking))
    return replace(found, item_fields=found.item_fields | {"words": found.item_fields["title"]})


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "items.db")


def lists_of(rec, **settings):
    return [rec.recommend(history, diversity=0, **settings) for history in HISTORIES]


def assert_same(found, expected):
    assert [[item for item, _ in row] for row in found] == [[i.item_id for i in row] for row in expected]
    scores = [[score for _, score in row] for row in found]
    np.testing.assert_allclose(scores, [[i.score for i in row] for row in expected], atol=1e-4)


def collections(uri):
    client = pymilvus.MilvusClient(uri)
    names = client.list_collections()
    client.close()
    return names


@pytest.mark.parametrize("index", ["FLAT", "HNSW", "IVF_FLAT", "AUTOINDEX"])
def test_lists_are_those_of_recommend(rec, uri, index):
    done = export_to_milvus(rec, uri=uri, collection="films", index=index)
    assert (done.n_items, done.width, done.fields) == (40, 10, ("title", "words"))
    with open_milvus(rec, uri=uri, collection="films") as films:
        assert_same(films.recommend(HISTORIES, k=10), lists_of(rec, k=10))


def test_filters_choose_by_fields(rec, uri):
    export_to_milvus(rec, uri=uri, collection="films")
    with open_milvus(rec, uri=uri, collection="films") as films:
        found = films.recommend(HISTORIES, k=8, filter='array_contains(words, "love")')
        assert_same(found, lists_of(rec, k=8, exclude_categories=["war"]))
        found = films.recommend(HISTORIES[:1], k=8, filter='title == "war war7"')
        assert [item for item, _ in found[0]] == ["i7"]
        with pytest.raises(LoraRecError, match=r"milvus at .*items\.db: "):
            films.recommend(HISTORIES, filter="no filter (")


def test_the_towers_vectors_answer_to_the_user_tower(rec, uri):
    export_to_milvus(rec, uri=uri, collection="towers", vectors="towers", fields=[])
    users = np.random.default_rng(0).normal(size=(3, 8)).astype("f4")
    with open_milvus(rec, uri=uri, collection="towers", vectors="towers") as towers:
        items, scores = towers.search(users, k=5)
        expected = users @ rec.item_vectors.T
        assert items.tolist() == np.argsort(-expected, axis=1, kind="stable")[:, :5].tolist()
        np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :5], atol=1e-5)
        with pytest.raises(DataError, match="item tower's vectors; call search with the user tower's"):
            towers.recommend(HISTORIES)
    with pytest.raises(DataError, match="'towers' does not hold the vectors 'head' of this bundle; write it"):
        open_milvus(rec, uri=uri, collection="towers")


def test_a_second_export_takes_the_place_of_the_first(rec, uri):
    first = export_to_milvus(rec, uri=uri, collection="films")
    second = export_to_milvus(rec, uri=uri, collection="films")
    assert set(collections(uri)) == {first.written, second.written}
    third = export_to_milvus(rec, uri=uri, collection="films")
    assert set(collections(uri)) == {second.written, third.written}
    with open_milvus(rec, uri=uri, collection="films") as films:
        assert films.written == third.written
        assert_same(films.recommend(HISTORIES), lists_of(rec))


def test_whoever_has_items_open_keeps_their_lists_until_they_are_dropped(rec, uri):
    export_to_milvus(rec, uri=uri, collection="films")
    files = rec.manifest.files | {"head.safetensors": "0" * 64}
    other = replace(rec, manifest=replace(rec.manifest, files=files))
    with open_milvus(rec, uri=uri, collection="films") as films:
        export_to_milvus(other, uri=uri, collection="films")
        assert_same(films.recommend(HISTORIES, k=5), lists_of(rec, k=5))
        export_to_milvus(other, uri=uri, collection="films")
        with pytest.raises(DataError, match="'films' that were opened here are replaced and dropped"):
            films.recommend(HISTORIES, k=5)


@pytest.mark.parametrize("broken", ["_rows", "_check_whole"])
def test_an_export_that_fails_changes_nothing(rec, uri, monkeypatch, broken):
    first = export_to_milvus(rec, uri=uri, collection="films")

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, broken, fail)
        with pytest.raises(KeyboardInterrupt):
            export_to_milvus(rec, uri=uri, collection="films")
        with pytest.raises(KeyboardInterrupt):
            export_to_milvus(rec, uri=uri, collection="others")
        assert collections(uri) == [first.written]
    with open_milvus(rec, uri=uri, collection="films") as films:
        assert_same(films.recommend(HISTORIES), lists_of(rec))


def test_items_that_are_lost_on_the_way_replace_nothing(rec, uri, monkeypatch):
    original = module._rows
    monkeypatch.setattr(module, "_rows", lambda *arguments: list(original(*arguments))[1:])
    with pytest.raises(LoraRecError, match="39 of 40 items arrived; nothing was replaced, try again"):
        export_to_milvus(rec, uri=uri, collection="films")
    assert collections(uri) == []


def test_what_a_killed_export_left_is_dropped(rec, uri, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "_check_whole", lambda *_: 1 / 0)
        patch.setattr(module, "_drop_unused", lambda *_: None)
        with pytest.raises(ZeroDivisionError):
            export_to_milvus(rec, uri=uri, collection="films")
    (left,) = collections(uri)
    with pytest.raises(DataError, match="no collection 'films'; write it: lora-rec milvus"):
        open_milvus(rec, uri=uri, collection="films")
    done = export_to_milvus(rec, uri=uri, collection="films")
    assert collections(uri) == [done.written] != [left]


def test_names_that_stand_for_something_else_are_left_alone(rec, uri):
    client = pymilvus.MilvusClient(uri)
    client.create_collection("theirs", dimension=4)
    client.create_alias(collection_name="theirs", alias="also_theirs")
    client.close()
    with pytest.raises(DataError, match="'theirs' is there and was not written by lora_rec; give another"):
        export_to_milvus(rec, uri=uri, collection="theirs")
    with pytest.raises(DataError, match="'also_theirs' stands for 'theirs', which lora_rec did not write"):
        export_to_milvus(rec, uri=uri, collection="also_theirs")
    export_to_milvus(rec, uri=uri, collection="films")
    with pytest.raises(DataError, match="'films' holds vectors 10 wide, and these are 8; give another name"):
        export_to_milvus(rec, uri=uri, collection="films", vectors="towers")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"collection": "my films"}, "collection: 'my films' is no name; use up to 100 letters, digits"),
        ({"vectors": "tower"}, "vectors: 'tower' is unknown; did you mean 'towers'?"),
        ({"fields": ["titel"]}, "fields: there is no field 'titel'; did you mean 'title'?"),
        ({"index": "FLATT"}, "index: 'FLATT' is unknown; did you mean 'FLAT'"),
    ],
)
def test_wrong_settings_are_one_error(rec, uri, settings, message):
    with pytest.raises(LoraRecError, match=message):
        export_to_milvus(rec, **({"uri": uri, "collection": "films"} | settings))
    if Path(uri).exists():
        assert collections(uri) == []


def test_a_search_for_nothing_is_refused(rec, uri):
    export_to_milvus(rec, uri=uri, collection="films")
    with open_milvus(rec, uri=uri, collection="films") as items:
        with pytest.raises(LoraRecError, match="k: 0 is below 1"):
            items.recommend([["i3"]], k=0)
        with pytest.raises(LoraRecError, match="a value is not finite"):
            items.search(np.full((1, 8), np.nan), k=2)


def test_fields_that_milvus_does_not_hold(rec, uri):
    long = replace(rec, item_fields={"title": ["ä" * 40_000] * 40, "no name": [""] * 40})
    with pytest.raises(DataError, match="fields.title: a text of 80,000 bytes; Milvus holds 65,535"):
        export_to_milvus(long, uri=uri, collection="films")
    with pytest.raises(DataError, match="fields: 'no name' cannot be a field of Milvus; leave it out"):
        export_to_milvus(long, uri=uri, collection="films", fields=["no name"])


def test_the_command_writes_and_says_so(bundle, uri, capsys):
    assert main(["milvus", str(bundle), "--uri", uri, "--collection", "films"]) == 0
    assert "films: 40 items, 10 wide, fields title, in " in capsys.readouterr().out
    rec = lora_rec.load(bundle)
    with open_milvus(rec, uri=uri, collection="films") as films:
        assert_same(films.recommend(HISTORIES), lists_of(rec))


def test_the_command_shows_no_secret(bundle, capsys, monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", "root:secret")
    uri = "http://ann:secret@localhost:1"
    assert main(["milvus", str(bundle), "--uri", uri, "--collection", "films"]) == 1
    shown = capsys.readouterr()
    assert "lora-rec: milvus at http://localhost:1: " in shown.err
    assert "secret" not in shown.out + shown.err
    assert "Traceback" not in shown.err


def test_a_missing_extra_says_what_to_install(rec, uri, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(LoraRecError, match=r"pymilvus: not installed; run: pip install 'lora-rec\[milvus\]'"):
        export_to_milvus(rec, uri=uri, collection="films")


@pytest.fixture
def address(tmp_path):
    """Milvus Lite behind a port, which speaks the protocol of a server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"from milvus_lite.adapter.grpc.server import run_server; run_server({str(tmp_path / 's.db')!r},"
    server = subprocess.Popen([sys.executable, "-c", f"{code} host='127.0.0.1', port={port})"])
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(timeout=10)


def test_an_address_does_as_a_file_does_and_needs_no_torch(bundle, address):
    code = f"""
import json, sys, lora_rec
from lora_rec.export.milvus import export_to_milvus, open_milvus
rec = lora_rec.load({str(bundle)!r})
export_to_milvus(rec, uri={address!r}, collection="films")
export_to_milvus(rec, uri={address!r}, collection="films")
with open_milvus(rec, uri={address!r}, collection="films") as films:
    found = films.recommend({HISTORIES!r})
print(json.dumps([found, "torch" in sys.modules]))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, has_torch = json.loads(done.stdout)
    assert not has_torch
    assert_same(found, lists_of(lora_rec.load(bundle)))


def test_what_another_process_wrote_is_searched(bundle, uri):
    code = "import sys; from lora_rec.cli import main; sys.exit(main(sys.argv[1:]))"
    command = ["milvus", str(bundle), "--uri", uri, "--collection", "films"]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", code, *command], check=True, env=environment, capture_output=True)
    plain = lora_rec.load(bundle)
    with open_milvus(plain, uri=uri, collection="films") as films:
        assert_same(films.recommend(HISTORIES, k=6), lists_of(plain, k=6))
