from itertools import combinations
from math import log2, sqrt

import numpy as np
import pytest

from lora_rec.metrics import (
    coverage_at_k,
    exposure_entropy_at_k,
    gini_at_k,
    pad_lists,
    personalization_at_k,
)


def test_coverage_by_hand():
    lists = np.array([[0, 1, 2], [0, 3, -1]])
    assert coverage_at_k(lists, k=3, n_items=8) == 4 / 8
    assert coverage_at_k(lists, k=1, n_items=8) == 1 / 8
    assert coverage_at_k(np.array([[-1]]), k=1, n_items=8) == 0


def test_gini_by_hand():
    lists = np.array([[0, 1], [0, 2], [0, -1]])  # shown 3, 1, 1 and 0 times
    # The mean of |x_i - x_j| over the pairs of two items, divided by twice the mean of x.
    differences = [abs(a - b) for a, b in combinations([3, 1, 1, 0], 2)]
    assert gini_at_k(lists, k=2, n_items=4) == pytest.approx(np.mean(differences) / (2 * 5 / 4))
    assert gini_at_k(lists, k=1, n_items=4) == 1
    assert gini_at_k(np.array([[0, 1, 2, 3]]), k=4, n_items=4) == 0
    assert gini_at_k(np.array([[0]]), k=1, n_items=1) == 0


def test_exposure_entropy_by_hand():
    lists = np.array([[0, 1], [0, 2]])
    assert exposure_entropy_at_k(lists, k=2, n_items=4) == pytest.approx(
        1 / 2 * log2(2) + 2 * 1 / 4 * log2(4)
    )
    assert exposure_entropy_at_k(lists, k=1, n_items=4) == 0


def test_personalization_is_the_mean_over_pairs_of_lists():
    rng = np.random.default_rng(0)  # any lists do: the pairs are averaged the long way
    lists = [rng.permutation(12)[: rng.integers(0, 6)] for _ in range(15)]
    filled = [set(items.tolist()) for items in lists if len(items)]
    assert len(filled) < len(lists)  # an empty list is left out
    cosines = [len(a & b) / sqrt(len(a) * len(b)) for a, b in combinations(filled, 2)]
    assert personalization_at_k(pad_lists(lists, k=5), k=5) == pytest.approx(1 - np.mean(cosines))


def test_personalization_ends():
    assert personalization_at_k(np.array([[3, 1], [1, 3], [3, 1]]), k=2) == pytest.approx(0)
    assert personalization_at_k(np.array([[3, 1], [2, 0]]), k=2) == 1
    assert personalization_at_k(np.array([[3, 1], [-1, -1]]), k=2) == 0


@pytest.mark.parametrize("metric", [coverage_at_k, gini_at_k, exposure_entropy_at_k])
def test_all_of_them_know_the_catalogue(metric):
    with pytest.raises(ValueError, match="n_items: item 3 is recommended, but there are 3 items"):
        metric(np.array([[3]]), k=1, n_items=3)
    with pytest.raises(ValueError, match="n_items: 0 is below 1"):
        metric(np.array([[-1]]), k=1, n_items=0)


def test_nothing_recommended():
    for lists in (np.empty((0, 2), dtype=int), np.array([[-1, -1]])):
        assert coverage_at_k(lists, k=2, n_items=3) == 0
        assert np.isnan(gini_at_k(lists, k=2, n_items=3))
        assert np.isnan(exposure_entropy_at_k(lists, k=2, n_items=3))
        assert personalization_at_k(lists, k=2) == 0
