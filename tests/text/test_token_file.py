import numpy as np
import pytest

from lora_rec.errors import DataError
from lora_rec.text import token_file
from lora_rec.text.collate import tokenize
from lora_rec.text.token_file import open_tokens


@pytest.fixture
def tokenizer(models):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(models["bert"])


TEXTS = ["war war1", "", "love love2 ; war7", "love"]


def test_what_is_read_is_what_was_tokenised(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(token_file, "TEXTS_AT_ONCE", 2)
    texts = TEXTS
    opened = open_tokens(tokenizer, texts, max_tokens=4, fingerprint="a", root=tmp_path)
    whole = tokenize(tokenizer, texts, max_tokens=4)
    np.testing.assert_array_equal(opened.ids, whole.ids)
    np.testing.assert_array_equal(opened.offsets, whole.offsets)
    assert (
        opened.batch(np.array([2, 0])).input_ids.tolist() == whole.batch(np.array([2, 0])).input_ids.tolist()
    )


def test_texts_are_tokenised_once(tokenizer, tmp_path, monkeypatch):
    calls = []
    original = token_file.tokenize
    monkeypatch.setattr(token_file, "tokenize", lambda *a, **k: calls.append(a) or original(*a, **k))
    for settings, expected in (
        ({}, 1),
        ({}, 1),
        ({"max_tokens": 5}, 2),
        ({"fingerprint": "b"}, 3),
    ):
        named = {"max_tokens": 4, "fingerprint": "a"} | settings
        open_tokens(tokenizer, TEXTS, root=tmp_path, **named)
        assert len(calls) == expected
    open_tokens(tokenizer, TEXTS[:3], max_tokens=4, fingerprint="a", root=tmp_path)
    open_tokens(tokenizer, ["war war", "1"], max_tokens=4, fingerprint="a", root=tmp_path)
    open_tokens(tokenizer, ["war", " war1"], max_tokens=4, fingerprint="a", root=tmp_path)
    assert len(calls) == 6


@pytest.mark.parametrize("n_bytes", [0, 20, -8])
def test_a_damaged_file_is_made_anew(tokenizer, tmp_path, caplog, n_bytes):
    settings = {"max_tokens": 4, "fingerprint": "a", "root": tmp_path}
    before = open_tokens(tokenizer, TEXTS, **settings).ids.tolist()
    (file,) = (tmp_path / "tokens").iterdir()
    file.write_bytes(file.read_bytes()[:n_bytes])
    assert open_tokens(tokenizer, TEXTS, **settings).ids.tolist() == before
    assert f"{file}: damaged" in caplog.text


def test_no_texts(tokenizer, tmp_path):
    assert len(open_tokens(tokenizer, [], max_tokens=4, fingerprint="a", root=tmp_path)) == 0


def test_a_failed_write_leaves_nothing(tokenizer, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(token_file, "tokenize", fail)
    with pytest.raises(KeyboardInterrupt):
        open_tokens(tokenizer, TEXTS[:2], max_tokens=4, fingerprint="a", root=tmp_path)
    assert not list((tmp_path / "tokens").iterdir())


def test_a_cache_that_cannot_be_made_is_one_error(tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file: cannot be written .*set LORA_REC_CACHE"):
        open_tokens(tokenizer, TEXTS[:2], max_tokens=4, fingerprint="a", root=tmp_path / "file")


def test_ids_of_another_tokenizer_are_not_read(tokenizer, tmp_path):
    def first():
        opened = open_tokens(tokenizer, [" ".join(TEXTS)], max_tokens=3, fingerprint="a", root=tmp_path)
        return opened[0].tolist()

    before = first()
    tokenizer.truncation_side = "left"
    assert first() == tokenizer(" ".join(TEXTS), truncation=True, max_length=3)["input_ids"] != before
    tokenizer.truncation_side = "right"
    assert first() == before
    tokenizer.add_tokens(["war war1"])
    assert first() != before
