from itertools import combinations
from math import log2, sqrt

import numpy as np
import pytest

from lora_rec.metrics import (
    calibration_error_at_k,
    category_coverage_at_k,
    category_entropy_at_k,
    category_ild_at_k,
    pad_lists,
)

# Item 0 is of the first category, item 1 of the first two, item 3 of the third, item 2 of none; nothing is of
# the fourth.
CATEGORIES = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]])
LISTS = np.array([[0, 1, 3], [0, 2, -1], [2, -1, -1], [-1, -1, -1]])
METRICS = [category_ild_at_k, category_entropy_at_k, category_coverage_at_k]


def test_ild_by_hand():
    expected = [1 / 3 * ((1 - 1 / sqrt(2)) + 1 + 1), 1, 0, 0]
    np.testing.assert_allclose(category_ild_at_k(LISTS, CATEGORIES, k=3), expected, atol=1e-12)


def test_two_items_without_category_are_not_alike():
    assert category_ild_at_k(np.array([[0, 1]]), np.zeros((2, 3)), k=2).tolist() == [1]


def test_entropy_by_hand():
    mix = [(1 + 1 / 2) / 3, 1 / 2 / 3, 1 / 3]  # of the first list
    expected = [-sum(p * log2(p) for p in mix), 0, np.nan, np.nan]
    np.testing.assert_allclose(category_entropy_at_k(LISTS, CATEGORIES, k=3), expected, atol=1e-12)
    np.testing.assert_allclose(category_entropy_at_k(LISTS, CATEGORIES, k=1), [0, 0, np.nan, np.nan])


def test_coverage_by_hand():
    np.testing.assert_allclose(category_coverage_at_k(LISTS, CATEGORIES, k=3), [3 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(category_coverage_at_k(LISTS, CATEGORIES, k=2), [2 / 3, 1 / 3, 0, 0])
    assert np.isnan(category_coverage_at_k(np.array([[0]]), np.zeros((1, 2)), k=1)).all()


def test_calibration_error_by_hand():
    histories = [[0, 1, 3], [0, 0, 3, 2], [3], [2]]
    found = calibration_error_at_k(LISTS, CATEGORIES, histories, k=3)
    third = log2(1 / 0.01) / 3  # the third category, which the list lacks
    second = 2 / 3 * log2(2 / 3 / (0.99 * 1 + 0.01 * 2 / 3)) + third
    np.testing.assert_allclose(found, [0, second, log2(1 / 0.01), np.nan], atol=1e-12)
    np.testing.assert_allclose(
        calibration_error_at_k(LISTS, CATEGORIES, histories, k=3, alpha=0.5)[2], log2(2), atol=1e-12
    )


def test_calibration_is_best_where_the_list_is_the_history():
    rng = np.random.default_rng(0)  # any weights do
    weights = rng.random((6, 4))
    for history in ([0, 1], [2, 3, 4]):
        itself = calibration_error_at_k(
            np.array([history]), weights, [history], k=2 if len(history) < 3 else 3
        )
        other = calibration_error_at_k(np.array([[5]]), weights, [history], k=1)
        assert itself < 1e-12 < other


def test_mixes_are_means_of_the_weights(monkeypatch):
    monkeypatch.setattr("lora_rec.metrics.categories._LISTS_PER_STEP", 7)  # several steps and a rest
    rng = np.random.default_rng(0)  # any weights do: the lists are averaged the long way
    weights = rng.random((30, 6)) * (rng.random((30, 6)) < 0.3)
    assert (weights.sum(axis=1) == 0).any()
    lists = [rng.permutation(30)[: rng.integers(0, 9)] for _ in range(20)]
    shares = [w / w.sum() for w in weights if w.sum()]
    expected = []
    for items in lists:
        some = [weights[i] / weights[i].sum() for i in items if weights[i].sum()]
        mix = np.mean(some, axis=0) if some else np.zeros(6)
        expected.append(-sum(p * log2(p) for p in mix if p) if some else np.nan)
    assert shares and np.isnan(expected).any()
    np.testing.assert_allclose(
        category_entropy_at_k(pad_lists(lists, k=8), weights, k=8), expected, atol=1e-9
    )


def test_ild_equals_the_mean_over_pairs():
    rng = np.random.default_rng(1)  # any weights do: the pairs are averaged the long way
    weights = rng.random((20, 5)) * (rng.random((20, 5)) < 0.3)
    lists = [rng.permutation(20)[:6] for _ in range(10)]

    def distance(i, j):
        norm = np.linalg.norm(weights[i]) * np.linalg.norm(weights[j])
        return 1 - weights[i] @ weights[j] / norm if norm else 1

    expected = [np.mean([distance(i, j) for i, j in combinations(items, 2)]) for items in lists]
    np.testing.assert_allclose(category_ild_at_k(np.array(lists), weights, k=6), expected, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_the_scale_of_an_item_does_not_matter(metric):
    scales = np.array([[2], [0.5], [1], [30]])
    np.testing.assert_allclose(
        metric(LISTS, CATEGORIES * scales, k=3), metric(LISTS, CATEGORIES, k=3), atol=1e-12
    )


@pytest.mark.parametrize("metric", METRICS)
def test_refuses(metric):
    with pytest.raises(ValueError, match=r"item_categories: shape \(4,\) is not \(n_items, C\)"):
        metric(LISTS, np.ones(4), k=2)
    with pytest.raises(ValueError, match="item_categories: item 3 is recommended, but there are 3 items"):
        metric(LISTS, CATEGORIES[:3], k=3)
    for bad in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="a weight of item 2 is negative or not finite"):
            metric(LISTS, np.where(np.arange(4)[:, None] == 2, bad, CATEGORIES), k=2)


def test_calibration_error_refuses():
    lists = np.array([[0]])
    with pytest.raises(ValueError, match=r"alpha: 0 is not within \(0, 1\)"):
        calibration_error_at_k(lists, CATEGORIES, [[0]], k=1, alpha=0)
    with pytest.raises(ValueError, match="histories: 2 users, but recommended has 1"):
        calibration_error_at_k(lists, CATEGORIES, [[0], [1]], k=1)
    with pytest.raises(ValueError, match="item_categories: item 4 is in a history, but there are 4 items"):
        calibration_error_at_k(lists, CATEGORIES, [[4]], k=1)


def test_no_users():
    none = np.empty((0, 2), dtype=int)
    assert all(metric(none, CATEGORIES, k=2).shape == (0,) for metric in METRICS)
    assert calibration_error_at_k(none, CATEGORIES, [], k=2).shape == (0,)
