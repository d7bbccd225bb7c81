import json

import numpy as np
import pytest

from lora_rec.data.lists import Lists
from lora_rec.errors import DataError
from lora_rec.rank import index as module
from lora_rec.rank.index import build_index, open_index
from lora_rec.rank.search import top_k


@pytest.fixture(scope="module")
def vectors():
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(50, 16))
    found = centres[generator.integers(0, 50, 12_000)] + 0.3 * generator.normal(size=(12_000, 16))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(vectors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    about = build_index(folder, vectors)
    assert about.recall >= 0.98
    assert about.n_probes < about.n_cells
    return folder


def test_it_finds_what_exact_search_finds(folder, vectors):
    users = vectors[:40] + 0.05
    exact, best = top_k(users, vectors, k=100)
    found, scores = open_index(folder, vectors).search(users, k=100)
    shares = [len(np.intersect1d(*pair)) / 100 for pair in zip(found, exact, strict=True)]
    assert np.mean(shares) > 0.95
    assert (np.diff(scores, axis=1) <= 0).all()
    for row in range(40):
        np.testing.assert_allclose(scores[row], vectors[found[row]] @ users[row], atol=1e-5)


def test_what_is_excluded_is_not_given(folder, vectors):
    index = open_index(folder, vectors)
    users = vectors[:2]
    first, _ = index.search(users, k=5)
    left_out = Lists.from_arrays([first[0, :3], []])
    found, scores = index.search(users, k=5, exclude=left_out)
    assert not np.isin(found[0], first[0, :3]).any()
    assert found[0, :2].tolist() == first[0, 3:].tolist()
    assert found[1].tolist() == first[1].tolist()
    assert np.isfinite(scores).all()


def test_an_index_of_other_vectors_is_refused(folder, vectors):
    with pytest.raises(DataError, match="of other vectors than these; make it anew: lora-rec index"):
        open_index(folder, vectors + 0.1)
    with pytest.raises(DataError, match="of other vectors"):
        open_index(folder, vectors[:-1])


def test_what_does_not_read_is_one_error(vectors, tmp_path):
    with pytest.raises(DataError, match="no index; make it anew"):
        open_index(tmp_path, vectors)
    about = {"n_items": 1, "width": 1, "digest": "", "n_cells": 1, "n_probes": 1, "recall": 1.0}
    (tmp_path / "index.json").write_text(json.dumps(about))
    (tmp_path / "index.faiss").write_bytes(b"no index")
    with pytest.raises(DataError, match="does not read"):
        open_index(tmp_path, vectors)


def test_few_items_need_none(vectors, tmp_path):
    with pytest.raises(DataError, match="searched exactly in under a millisecond"):
        build_index(tmp_path, vectors[:100])
    with pytest.raises(DataError, match=r"recall: 1\.5 is not in"):
        build_index(tmp_path, vectors, recall=1.5)


def test_a_failed_write_leaves_the_folder_as_it_was(folder, vectors, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(module.json, "dumps", fail)
    with pytest.raises(DataError, match="cannot be written"):
        build_index(tmp_path, vectors)
    assert not list(tmp_path.iterdir())
