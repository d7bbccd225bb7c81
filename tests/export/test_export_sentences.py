"""A tower as a model of sentence-transformers and back: the vectors are the tower's."""

import json
import sys

import numpy as np
import pytest

import lora_rec
from lora_rec.errors import LoraRecError, TowerError
from lora_rec.pipeline.merge import merge_bundle
from lora_rec.text.collate import tokenize
from lora_rec.towers.two_tower import encode

TEXTS = ["war1 war2", "love3 love4 ; war9", "war7 " * 100]
CALLS = {"user_tower": "encode_users", "item_tower": "encode_items"}


@pytest.fixture(scope="module")
def made(make_bundle, models, tmp_path_factory):
    """A bundle whose towers have moved, and both as models of sentence-transformers."""
    pytest.importorskip("sentence_transformers")
    bases = {"user_backbone": str(models["bert"]), "item_backbone": str(models["llama"])}
    short = {"max_tokens": 16}
    bundle = make_bundle("sentences", user_tower=short, item_tower=short, train={"epochs": 1})
    folder = tmp_path_factory.mktemp("sentences") / "out"
    merge_bundle(bundle, folder, sentence_transformers=True, **bases)
    return lora_rec.load_towers(bundle, **bases), folder


@pytest.mark.parametrize("name", CALLS)
def test_there_and_back_with_equal_vectors(made, name, tmp_path):
    from sentence_transformers import SentenceTransformer

    from lora_rec.export.sentences import read_sentence_transformer

    towers, folder = made
    wanted = getattr(towers, CALLS[name])(TEXTS)
    assert np.abs(wanted[0] - wanted[1]).max() > 0.01
    model = SentenceTransformer(str(folder / name), device="cpu", local_files_only=True)
    np.testing.assert_allclose(model.encode(TEXTS), wanted, atol=1e-5)
    tower, max_tokens = read_sentence_transformer(folder / name)
    assert max_tokens == towers.manifest.tower(name).max_tokens
    tokens = tokenize(tower.backbone_info.tokenizer, TEXTS, max_tokens=max_tokens)
    found = encode(tower, tokens, np.arange(len(tokens)), token_budget=1000)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for file in (folder / name).rglob("*.json"):
        assert "/tmp" not in file.read_text(), file


def test_other_models_are_refused_and_nothing_of_them_runs(made, tmp_path):
    from lora_rec.export.sentences import read_sentence_transformer

    folder = made[1] / "item_tower"
    rows = json.loads((folder / "modules.json").read_text())

    def refused(change, text):
        (tmp_path / "modules.json").write_text(json.dumps(change))
        with pytest.raises(TowerError, match=text):
            read_sentence_transformer(tmp_path)

    refused([rows[0] | {"type": "evil.Transformer"}, *rows[1:]], "evil.Transformer .*nothing was run")
    refused([rows[0] | {"path": "../x"}, *rows[1:]], r"at \.\./x, which no tower has")
    refused([rows[0], rows[2], rows[1], rows[3]], "Transformer, Dense, Pooling, Normalize; a tower is")
    refused({"a": 1}, "no model of sentence-transformers")
    with pytest.raises(TowerError, match="no model of sentence-transformers"):
        read_sentence_transformer(tmp_path / "nothing")


def test_without_the_library_it_says_what_to_install(monkeypatch, tmp_path):
    from lora_rec.export.sentences import read_sentence_transformer

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.setitem(sys.modules, "sentence_transformers.sentence_transformer", None)
    with pytest.raises(LoraRecError, match=r"pip install 'lora-rec\[sentences\]'"):
        read_sentence_transformer(tmp_path)
