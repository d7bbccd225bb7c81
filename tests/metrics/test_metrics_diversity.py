from itertools import combinations
from math import log2, sqrt

import numpy as np
import pytest

from lora_rec.metrics import coverage_at_k, ild_at_k, novelty_at_k, pad_lists


def test_ild_by_hand():
    vectors = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-5.0, 0.0]])
    lists = np.array([[0, 1, 2], [0, 3, -1], [2, -1, -1], [-1, -1, -1]])
    half = 1 - 1 / sqrt(2)  # items 0 and 2, and items 1 and 2, are 45 degrees apart
    np.testing.assert_allclose(ild_at_k(lists, vectors, k=3), [1 / 3 * (1 + 2 * half), 2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(ild_at_k(lists, vectors, k=2), [1, 2, 0, 0], atol=1e-12)
    assert ild_at_k(lists, vectors, k=1).tolist() == [0, 0, 0, 0]


def test_ild_of_one_direction_is_zero():
    vectors = np.outer([1, 2, 3, 4], [0.1, 0.2, 0.3]).astype(np.float32)
    np.testing.assert_allclose(ild_at_k(np.array([[0, 1, 2, 3]]), vectors, k=4), [0], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ild_equals_the_mean_over_pairs(dtype, monkeypatch):
    monkeypatch.setattr("lora_rec.metrics.diversity._USERS_PER_STEP", 7)  # several steps and a rest
    rng = np.random.default_rng(0)  # any vectors do: the pairs are averaged the long way
    vectors = rng.normal(size=(30, 5)).astype(dtype)
    lists = [rng.permutation(30)[: rng.integers(2, 9)] for _ in range(20)]
    unit = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    expected = [np.mean([1 - unit[i] @ unit[j] for i, j in combinations(items, 2)]) for items in lists]
    np.testing.assert_allclose(ild_at_k(pad_lists(lists, k=8), vectors, k=8), expected, atol=1e-9)


@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_ild_refuses_a_vector_without_direction(bad):
    with pytest.raises(
        ValueError, match=r"the vector of item 1 is zero or not finite \(1 such items\); a cosine needs"
    ):
        ild_at_k(np.array([[0, 2]]), np.array([[1.0, 0.0], bad, [0.0, 1.0]]), k=2)


def test_ild_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"item_vectors: shape \(3,\) is not \(n_items, D\)"):
        ild_at_k(np.array([[0, 2]]), np.ones(3), k=2)
    with pytest.raises(ValueError, match="item_vectors: item 2 is recommended, but there are 2 items"):
        ild_at_k(np.array([[0, 2]]), np.eye(2), k=2)


def test_coverage_by_hand():
    lists = np.array([[0, 1, 2], [0, 3, -1]])
    assert coverage_at_k(lists, k=3, n_items=8) == 4 / 8
    assert coverage_at_k(lists, k=1, n_items=8) == 1 / 8
    assert coverage_at_k(np.array([[-1]]), k=1, n_items=8) == 0


def test_coverage_refuses():
    with pytest.raises(ValueError, match="n_items: item 3 is recommended, but there are 3 items"):
        coverage_at_k(np.array([[3]]), k=1, n_items=3)
    with pytest.raises(ValueError, match="n_items: 0 is below 1"):
        coverage_at_k(np.array([[-1]]), k=1, n_items=0)


def test_novelty_by_hand():
    counts = np.array([9, 4, 0])  # of 9 users: all, four, nobody
    lists = np.array([[0, 1, 2], [2, -1, -1], [-1, -1, -1]])
    expected = [1 / 3 * (-log2(10 / 10) - log2(5 / 10) - log2(1 / 10)), log2(10), np.nan]
    np.testing.assert_allclose(novelty_at_k(lists, counts, k=3, n_users=9), expected, atol=1e-12)
    np.testing.assert_allclose(novelty_at_k(lists, counts, k=1, n_users=9), [0, log2(10), np.nan], atol=1e-12)


def test_novelty_refuses():
    lists = np.array([[0, 1]])
    with pytest.raises(
        ValueError, match=r"item_counts: 4 of item 1 is not within 0\.\.3, the number of users"
    ):
        novelty_at_k(lists, np.array([1, 4]), k=2, n_users=3)
    with pytest.raises(ValueError, match=r"item_counts: -1 of item 0 is not within 0\.\.3"):
        novelty_at_k(lists, np.array([-1, 2]), k=2, n_users=3)
    with pytest.raises(ValueError, match="item_counts: item 1 is recommended, but there are 1 items"):
        novelty_at_k(lists, np.array([1]), k=2, n_users=3)
    with pytest.raises(ValueError, match=r"item_counts: shape \(1, 2\) is not \(n_items,\)"):
        novelty_at_k(lists, np.array([[1, 2]]), k=2, n_users=3)


@pytest.mark.parametrize("n_items", [0, 3])
def test_no_users_and_no_items(n_items):
    none, empty = np.empty((0, 2), dtype=int), np.array([[-1, -1]])
    vectors, counts = np.ones((n_items, 4)), np.zeros(n_items, dtype=int)
    assert ild_at_k(none, vectors, k=2).shape == (0,)
    assert novelty_at_k(none, counts, k=2, n_users=1).shape == (0,)
    assert coverage_at_k(none, k=2, n_items=3) == 0
    assert ild_at_k(empty, vectors, k=2).tolist() == [0]
    assert np.isnan(novelty_at_k(empty, counts, k=2, n_users=1)).tolist() == [True]
