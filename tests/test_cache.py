import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lora_rec.cache import cache_folder as find_cache_folder
from lora_rec.cache import list_cache, prune_cache
from lora_rec.cli import main
from lora_rec.lock import FolderLock
from lora_rec.text import token_file
from lora_rec.text.collate import TokenizedTexts
from lora_rec.towers import source
from lora_rec.towers.source import _convert_gguf


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("LORA_REC_CACHE", "~/mine")
    assert find_cache_folder() == Path.home() / "mine"
    monkeypatch.setenv("LORA_REC_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/tmp/caches")
    assert find_cache_folder() == Path("/tmp/caches/lora_rec")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert find_cache_folder() == Path.home() / ".cache" / "lora_rec"


def entry(root, place, *, n_bytes, age):
    file = root / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"0" * n_bytes)
    top = root / Path(place).parts[0] / Path(place).parts[1]
    os.utime(top, (time.time() - age, time.time() - age))


@pytest.fixture
def filled(cache_folder):
    entry(cache_folder, "prefix/aa/segment-1/states.bin", n_bytes=1000, age=50)
    entry(cache_folder, "prefix/bb/segment-1/states.bin", n_bytes=500, age=10)
    entry(cache_folder, "tokens/cc.arrow", n_bytes=100, age=30)
    entry(cache_folder, "datasets/movielens/100k/u.data", n_bytes=9000, age=90)
    return cache_folder


def names(entries):
    return [entry.path.name for entry in entries]


def test_the_last_opened_comes_first(filled):
    assert names(list_cache()) == ["bb", "cc.arrow", "aa", "movielens"]
    assert [entry.n_bytes for entry in list_cache()] == [500, 100, 1000, 9000]


def test_what_was_not_opened_for_longest_goes_first(filled):
    assert names(prune_cache(keep_bytes=700)) == ["aa"]
    assert names(list_cache()) == ["bb", "cc.arrow", "movielens"]
    assert names(prune_cache(older_than=20)) == ["cc.arrow"]
    assert names(prune_cache(keep_bytes=0)) == ["bb"]
    assert names(prune_cache(keep_bytes=0, kinds=("datasets",))) == ["movielens"]
    assert list_cache() == []


def test_what_does_not_fit_makes_no_room_for_what_is_older(cache_folder):
    for name, n_bytes, age in (("new", 1500, 1), ("middle", 1000, 5), ("old", 400, 9)):
        entry(cache_folder, f"prefix/{name}/segment-1/states.bin", n_bytes=n_bytes, age=age)
    assert names(prune_cache(keep_bytes=2000)) == ["middle", "old"]
    assert names(list_cache()) == ["new"]


def test_what_a_run_is_computing_stays(filled):
    held = FolderLock(filled / "prefix" / "aa" / "tmp-x", error=ValueError)
    assert names(prune_cache(keep_bytes=0)) == ["bb", "cc.arrow"]
    held.release()
    assert names(prune_cache(keep_bytes=0)) == ["aa"]


def test_texts_that_a_run_is_tokenising_stay(filled, monkeypatch):
    gone = []

    def while_it_is_written(tokenizer, texts, *, max_tokens):
        gone.extend(prune_cache(keep_bytes=0))
        return TokenizedTexts(np.array([7, 7, 7], np.int32), np.array([0, 1, 3]))

    monkeypatch.setattr(token_file, "tokenize", while_it_is_written)
    monkeypatch.setattr(token_file, "_settings_of", lambda tokenizer: "")
    tokens = token_file.open_tokens(None, ["a", "bc"], max_tokens=4, fingerprint="", root=filled)
    assert tokens.lengths.tolist() == [1, 2]
    assert sorted(names(gone)) == ["aa", "bb", "cc.arrow"]
    assert [path.suffix for path in (filled / "tokens").iterdir()] == [".arrow"]


def test_links_and_what_goes_meanwhile_are_no_errors(filled, tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "states.bin").write_bytes(b"0" * 7)
    (filled / "prefix" / "linked").symlink_to(tmp_path / "disk")
    (filled / "prefix" / "to_nothing").symlink_to(tmp_path / "nothing")
    (filled / "prefix" / "aa" / "gone").symlink_to(tmp_path / "nothing")
    assert {entry.path.name for entry in list_cache()} == {"linked", "bb", "cc.arrow", "aa", "movielens"}
    assert set(names(prune_cache(keep_bytes=0))) == {"linked", "bb", "cc.arrow", "aa"}
    assert (tmp_path / "disk" / "states.bin").exists()


def test_translations_are_listed_and_a_damaged_note_does_no_harm(cache_folder):
    entry(cache_folder, "translations/aa.json", n_bytes=7, age=1)
    for name, text in (("cut", '{"backbone"'), ("empty", "{}")):
        entry(cache_folder, f"prefix/{name}/segment-1/states.bin", n_bytes=1, age=2)
        (cache_folder / "prefix" / name / "about.json").write_text(text)
    found = {entry.path.name: entry.about for entry in list_cache()}
    assert found == {
        "aa.json": "aa.json",
        "cut": "cut, whose about.json is damaged",
        "empty": "empty, whose about.json is damaged",
    }


def test_a_converted_backbone_that_is_used_stays(cache_folder):
    entry(cache_folder, "backbones/tiny/model.safetensors", n_bytes=9, age=90 * 86_400)
    folder = cache_folder / "backbones" / "tiny"
    assert _convert_gguf(Path("packaged"), "tiny.gguf", target=folder) == folder
    assert prune_cache(older_than=86_400, kinds=("backbones",)) == []


def test_a_conversion_draws_no_numbers_of_the_run(cache_folder, models, monkeypatch):
    pytest.importorskip("gguf")
    for kind in (source.AutoModel, source.AutoTokenizer):
        plainly = lambda folder, gguf_file, kind=kind, **more: kind.from_pretrained(folder, **more)  # noqa: E731
        from_config = getattr(kind, "from_config", None)
        there = SimpleNamespace(from_pretrained=plainly, from_config=from_config)
        monkeypatch.setattr(source, kind.__name__, there)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    converted = _convert_gguf(models["llama"], "tiny.gguf", target=cache_folder / "backbones" / "tiny")
    assert (converted / "model.safetensors").is_file()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_command_lists_and_removes(filled, capsys):
    (filled / "prefix" / "bb" / "about.json").write_text(
        '{"backbone": "tiny", "precision": "4bit", "layers": 2, "width": 32}'
    )
    assert main(["cache"]) == 0
    listed = capsys.readouterr().out
    assert "tiny, 4bit, below layer 2, in 1 segments" in listed
    assert "removed" not in listed
    assert main(["cache", "--keep-gb", "0", "--kind", "prefix"]) == 0
    assert capsys.readouterr().out.count("removed prefix") == 2
    assert main(["cache", "--kind", "prefix"]) == 1
    assert "add --keep-gb or --older-than" in capsys.readouterr().err
