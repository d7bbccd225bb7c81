import json

import numpy as np
import pytest

from lora_rec.data.lists import Lists
from lora_rec.errors import DataError
from lora_rec.rank import index as module
from lora_rec.rank import index_build
from lora_rec.rank.index import open_index
from lora_rec.rank.index_build import build_index
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


def test_a_long_list_is_full_and_as_near_to_the_exact_one(folder, vectors):
    users = np.stack([vectors[rows].mean(axis=0) for rows in np.arange(100).reshape(20, 5)])
    index = open_index(folder, vectors)
    for k in (1_000, 12_000):
        found, scores = index.search(users, k=k)
        assert (found >= 0).all() and np.isfinite(scores).all()
        exact, _ = top_k(users, vectors, k=k)
        shares = [len(np.intersect1d(*pair)) / k for pair in zip(found, exact, strict=True)]
        assert np.mean(shares) > 0.9
    left_out = Lists.from_arrays([np.arange(11_990)] * 20)
    assert (index.search(users, k=20, exclude=left_out)[0] >= 0).sum(axis=1).tolist() == [10] * 20


def test_what_cannot_be_searched_for_is_refused(folder, vectors, tmp_path):
    index = open_index(folder, vectors)
    for users, settings, message in (
        (vectors[:2, :5], {"k": 5}, r"user_vectors: shape \(2, 5\); give \(U, 16\)"),
        (vectors[0], {"k": 5}, r"user_vectors: shape \(16,\)"),
        (vectors[:2], {"k": 0}, "k: 0 is below 1"),
        (vectors[:2], {"k": 5, "exclude": Lists.from_arrays([[0]] * 3)}, "exclude: 3 lists for 2 users"),
    ):
        with pytest.raises(ValueError, match=message):
            index.search(users, **settings)
    for queries in (vectors[:0], vectors[:3, :4]):
        with pytest.raises(DataError, match=r"queries: shape \(., .*\); give \(Q, 16\)"):
            build_index(tmp_path, vectors, queries=queries)


def test_an_exact_search_gives_the_very_best(folder, vectors):
    index = open_index(folder, vectors)
    users = np.random.default_rng(1).normal(size=(30, 16)).astype(np.float32)
    for k in (1, 20, 100):
        exact, best = top_k(users, vectors, k=k)
        found, scores = index.search(users, k=k, exact=True)
        np.testing.assert_array_equal(found, exact)
        np.testing.assert_allclose(scores, best, atol=1e-5)
    left_out = Lists.from_arrays([*exact[:29, :60], []])
    exact, _ = top_k(users, vectors, k=20, exclude=left_out)
    np.testing.assert_array_equal(index.search(users, k=20, exclude=left_out, exact=True)[0], exact)


@pytest.mark.parametrize("largest", [10, 3000])
def test_an_exact_search_asks_for_more_where_codes_are_coarse(vectors, tmp_path, monkeypatch, largest):
    """One large value spreads the codes so far that many items have the same one."""
    coarse = vectors.copy()
    coarse[77, 3] = largest
    build_index(tmp_path, coarse)
    index = open_index(tmp_path, coarse)
    asked, read = [], []
    candidates = module.ItemIndex._candidates
    monkeypatch.setattr(
        module.ItemIndex, "_candidates", lambda *args, **kw: asked.append(args[2]) or candidates(*args, **kw)
    )
    monkeypatch.setattr(module, "top_k", lambda *args, **kw: read.append(1) or top_k(*args, **kw))
    users = np.random.default_rng(1).normal(size=(10, 16)).astype(np.float32)
    found, _ = index.search(users, k=10, exact=True)
    np.testing.assert_array_equal(found, top_k(users, coarse, k=10)[0])
    assert len(asked) > 1 or read  # the first candidates proved nothing
    assert bool(read) == (largest == 3000)  # where no code tells anything, all vectors are read


@pytest.mark.parametrize("length", [1e-25, 1e25])
def test_an_exact_search_is_so_for_users_of_any_length(vectors, tmp_path, length):
    coarse = vectors.copy()
    coarse[77, 3] = 300
    build_index(tmp_path, coarse, recall=0.1)
    users = (np.random.default_rng(1).normal(size=(20, 16)) * length).astype(np.float32)
    found, _ = open_index(tmp_path, coarse).search(users, k=10, exact=True)
    np.testing.assert_array_equal(found, top_k(users, coarse, k=10)[0])


def test_codes_spread_over_all_values_however_large_the_sample(tmp_path, monkeypatch):
    """faiss trains its codes on 100,000 vectors, of which row 99 is none where there are 131,072."""
    monkeypatch.setattr(index_build, "TRAINED_PER_CELL", 1024)
    many = np.random.default_rng(0).uniform(-1, 1, size=(131_072, 4)).astype(np.float32)
    many[99, 3], many[106, 2] = 5, -5
    about = build_index(tmp_path, many, recall=0.01)
    assert about.code_error < 0.04  # half a step of 10 / 255 in each of four places


def test_of_equal_items_the_earlier_ones_are_given(vectors, tmp_path):
    same = vectors.copy()
    same[5000:5300] = same[0]
    build_index(tmp_path, same)
    found, _ = open_index(tmp_path, same).search(same[:1], k=10, exact=True)
    assert found.tolist() == [[0, *range(5000, 5009)]]


def test_no_more_items_than_there_are(folder, vectors):
    left_out = Lists.from_arrays([np.arange(11_990)])
    found, scores = open_index(folder, vectors).search(vectors[:1], k=20, exclude=left_out, exact=True)
    assert sorted(found[0, :10].tolist()) == list(range(11_990, 12_000))
    assert (found[0, 10:] == -1).all() and np.isneginf(scores[0, 10:]).all()


def test_vectors_that_are_nearly_alike_are_told_apart(tmp_path):
    """As those of a language model are that nobody trained for it: one direction, and little beside it."""
    generator = np.random.default_rng(0)
    apart = 0.02 * generator.normal(size=(30, 24))[generator.integers(0, 30, 20_000)]
    found = 1 + apart + 0.01 * generator.normal(size=(20_000, 24))
    alike = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    about = build_index(tmp_path, alike)
    assert about.recall >= 0.98
    assert about.n_probes < about.n_cells
    users = alike[:50]
    _, best = top_k(users, alike, k=50)
    _, scores = open_index(tmp_path, alike).search(users, k=50, exact=True)
    np.testing.assert_allclose(scores, best, atol=3e-7)  # items that differ by a rounding may swap


def test_a_value_that_is_not_finite_is_refused(vectors, tmp_path):
    broken = vectors.copy()
    broken[9000, 2] = np.nan
    with pytest.raises(DataError, match="a value among the vectors from 0 on is not finite"):
        build_index(tmp_path, broken)
    with pytest.raises(DataError, match="queries: a value is not finite"):
        build_index(tmp_path, vectors, queries=broken[9000:9001])


@pytest.mark.parametrize("exact", [False, True])
def test_a_user_that_is_not_finite_is_refused(folder, vectors, exact):
    users = vectors[:3].copy()
    users[1, 2] = np.nan
    with pytest.raises(ValueError, match="user_vectors, item_vectors: a value is not finite"):
        open_index(folder, vectors).search(users, k=5, exact=exact)


def test_an_index_of_other_vectors_is_refused(folder, vectors):
    with pytest.raises(DataError, match="of other vectors than these; make it anew: lora-rec index"):
        open_index(folder, vectors + 0.1)
    with pytest.raises(DataError, match="of other vectors"):
        open_index(folder, vectors[:-1])
    for row in (0, 4321, len(vectors) - 1):
        changed = vectors.copy()
        changed[row, 0] += 0.1
        with pytest.raises(DataError, match="of other vectors"):
            open_index(folder, changed)


def test_what_does_not_read_is_one_error(vectors, tmp_path):
    with pytest.raises(DataError, match="no index; make it anew"):
        open_index(tmp_path, vectors)
    about = {"n_items": 1, "width": 1, "digest": "", "n_cells": 1, "n_probes": 1, "recall": 1.0}
    about |= {"code_error": 0.1, "n_candidates": 2}
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
