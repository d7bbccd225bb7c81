from itertools import combinations
from math import sqrt

import numpy as np
import pytest

from lora_rec.metrics import ild_at_k, ild_min_at_k, pad_lists


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
def test_ild_equals_the_mean_and_the_minimum_over_pairs(dtype, monkeypatch):
    monkeypatch.setattr("lora_rec.metrics.diversity._SLOTS_PER_STEP", 7 * 8)  # several steps and a rest
    rng = np.random.default_rng(0)  # any vectors do: the pairs are averaged the long way
    vectors = rng.normal(size=(30, 5)).astype(dtype)
    lists = [rng.permutation(30)[: rng.integers(2, 9)] for _ in range(20)]
    unit = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    distances = [[1 - unit[i] @ unit[j] for i, j in combinations(items, 2)] for items in lists]
    padded = pad_lists(lists, k=8)
    np.testing.assert_allclose(ild_at_k(padded, vectors, k=8), list(map(np.mean, distances)), atol=1e-9)
    np.testing.assert_allclose(ild_min_at_k(padded, vectors, k=8), list(map(min, distances)), atol=1e-9)


def test_the_minimum_shows_one_pair_of_copies():
    vectors = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [-5.0, 0.0]])
    lists = np.array([[0, 1, 2], [0, 1, 3], [0, 3, -1], [2, -1, -1], [-1, -1, -1]])
    assert ild_min_at_k(lists, vectors, k=3).tolist() == [0, 1, 2, 0, 0]
    assert ild_min_at_k(lists, vectors, k=2).tolist() == [1, 1, 2, 0, 0]
    assert ild_min_at_k(lists, vectors, k=1).tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("metric", [ild_at_k, ild_min_at_k])
@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_ild_refuses_a_vector_without_direction(bad, metric):
    with pytest.raises(
        ValueError, match=r"the vector of item 1 is zero or not finite \(1 such items\); a cosine needs"
    ):
        metric(np.array([[0, 2]]), np.array([[1.0, 0.0], bad, [0.0, 1.0]]), k=2)


def test_ild_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"item_vectors: shape \(3,\) is not \(n_items, D\)"):
        ild_at_k(np.array([[0, 2]]), np.ones(3), k=2)
    with pytest.raises(ValueError, match="item_vectors: item 2 is recommended, but there are 2 items"):
        ild_at_k(np.array([[0, 2]]), np.eye(2), k=2)


@pytest.mark.parametrize("metric", [ild_at_k, ild_min_at_k])
@pytest.mark.parametrize("n_items", [0, 3])
def test_no_users_and_no_items(n_items, metric):
    vectors = np.ones((n_items, 4))
    assert metric(np.empty((0, 2), dtype=int), vectors, k=2).shape == (0,)
    assert metric(np.array([[-1, -1]]), vectors, k=2).tolist() == [0]
