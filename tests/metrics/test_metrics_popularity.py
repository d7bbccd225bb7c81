from math import log2

import numpy as np
import pytest

from lora_rec.metrics import (
    new_items_at_k,
    novelty_at_k,
    popularity_at_k,
    popularity_lift_at_k,
    serendipity_at_k,
)

COUNTS = np.array([9, 4, 0, 4])
LISTS = np.array([[0, 1, 2], [2, -1, -1], [-1, -1, -1]])


def test_novelty_by_hand():
    counts = np.array([9, 4, 0])  # of 9 users: all, four, nobody
    lists = np.array([[0, 1, 2], [2, -1, -1], [-1, -1, -1]])
    expected = [1 / 3 * (-log2(10 / 10) - log2(5 / 10) - log2(1 / 10)), log2(10), np.nan]
    np.testing.assert_allclose(novelty_at_k(lists, counts, k=3, n_users=9), expected, atol=1e-12)
    np.testing.assert_allclose(novelty_at_k(lists, counts, k=1, n_users=9), [0, log2(10), np.nan], atol=1e-12)


def test_small_counts_do_not_wrap():
    lists = np.array([[0, 1]])
    counts = np.array([255, 3])
    expected = novelty_at_k(lists, counts, k=2, n_users=300)
    np.testing.assert_array_equal(novelty_at_k(lists, counts.astype("u1"), k=2, n_users=300), expected)


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


def test_popularity_and_new_items_by_hand():
    np.testing.assert_array_equal(popularity_at_k(LISTS, COUNTS, k=3), [(9 + 4 + 0) / 3, 0, np.nan])
    np.testing.assert_array_equal(popularity_at_k(LISTS, COUNTS, k=1), [9, 0, np.nan])
    np.testing.assert_array_equal(new_items_at_k(LISTS, COUNTS, k=3), [1 / 3, 1, np.nan])
    np.testing.assert_array_equal(new_items_at_k(LISTS, COUNTS, k=1), [0, 1, np.nan])


def test_popularity_lift_by_hand():
    lists = np.array([[0, 1], [2, -1], [1, 3], [1, 3], [1, 3], [-1, -1]])
    histories = [[1, 3], [0], [0, 1, 1], [], [2], [0]]
    expected = [(9 + 4) / 2 / 4 - 1, -1, 4 / ((9 + 4 + 4) / 3) - 1, np.nan, np.nan, np.nan]
    np.testing.assert_allclose(popularity_lift_at_k(lists, COUNTS, histories, k=2), expected, atol=1e-12)


def test_serendipity_by_hand():
    # Items 1 and 3 share the second place by count, and item 2, which nobody took, has none.
    lists = np.array([[3, 2, 0], [3, 2, 0], [1, -1, -1], [0, 1, 2], [-1, -1, -1]])
    relevant = [[0, 2, 3], [1], [1], [], [0]]
    expected = [((4 - 3) / 4 + 3 / 4 + 0) / 3, 0, 1 / 4, np.nan, 0]
    np.testing.assert_allclose(serendipity_at_k(lists, relevant, COUNTS, k=3), expected, atol=1e-12)


def test_refused_counts_and_histories():
    lists = np.array([[0, 1]])
    for metric in (popularity_at_k, new_items_at_k):
        with pytest.raises(ValueError, match="item_counts: -1 of item 0 is not 0 or more; count each user"):
            metric(lists, np.array([-1, 2]), k=2)
        with pytest.raises(ValueError, match="item_counts: nan of item 1 is not 0 or more"):
            metric(lists, np.array([1, np.nan]), k=2)
        with pytest.raises(ValueError, match="item_counts: item 1 is recommended, but there are 1 items"):
            metric(lists, np.array([1]), k=2)
    with pytest.raises(ValueError, match="item_counts: item 2 is in a history, but there are 2 items"):
        popularity_lift_at_k(lists, np.array([1, 2]), [[2]], k=2)
    with pytest.raises(ValueError, match="histories: 2 users, but recommended has 1"):
        popularity_lift_at_k(lists, np.array([1, 2]), [[0], [1]], k=2)
    with pytest.raises(ValueError, match="histories: -1 is below 0"):
        popularity_lift_at_k(lists, np.array([1, 2]), [[-1]], k=2)
    with pytest.raises(ValueError, match="relevant: 0 users, but recommended has 1"):
        serendipity_at_k(lists, [], np.array([1, 2]), k=2)


@pytest.mark.parametrize("n_items", [0, 3])
def test_no_users_and_no_items(n_items):
    none, empty, counts = np.empty((0, 2), dtype=int), np.array([[-1, -1]]), np.zeros(n_items, dtype=int)
    for lists, relevant, expected in ((none, [], []), (empty, [[0]], [0])):
        assert serendipity_at_k(lists, relevant, counts, k=2).tolist() == expected
    for lists in (none, empty):
        nothing = np.full(len(lists), np.nan)
        np.testing.assert_array_equal(novelty_at_k(lists, counts, k=2, n_users=1), nothing)
        np.testing.assert_array_equal(popularity_at_k(lists, counts, k=2), nothing)
        np.testing.assert_array_equal(new_items_at_k(lists, counts, k=2), nothing)
        np.testing.assert_array_equal(popularity_lift_at_k(lists, counts, [[]] * len(lists), k=2), nothing)
