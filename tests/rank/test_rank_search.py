import numpy as np
import pytest

from lora_rec.data.lists import Lists
from lora_rec.rank import search
from lora_rec.rank.search import top_k, top_k_of


def test_best_first_ties_by_index_and_seen_left_out():
    items = np.array([[1.0], [3.0], [3.0], [2.0]], dtype="f4")
    found, scores = top_k(np.ones((1, 1), "f4"), items, k=3)
    assert found.tolist() == [[1, 2, 3]]
    assert scores.tolist() == [[3, 3, 2]]
    found, scores = top_k(np.ones((1, 1), "f4"), items, k=4, exclude=Lists.from_arrays([[1, 3]]))
    assert found.tolist() == [[2, 0, -1, -1]]


def test_equals_a_full_sort_over_blocks():
    generator = np.random.default_rng(0)
    users, items = generator.normal(size=(30, 5)).astype("f4"), generator.normal(size=(80, 5)).astype("f4")
    found, _ = top_k(users, items, k=10, block=7)
    assert (found == np.argsort(-(users @ items.T), axis=1)[:, :10]).all()


def test_blocks_of_items_change_nothing(monkeypatch):
    generator = np.random.default_rng(1)
    users = generator.integers(-2, 3, size=(9, 3)).astype("f4")  # many equal scores
    items = generator.integers(-2, 3, size=(200, 3)).astype("f4")
    seen = Lists.from_arrays([generator.choice(200, n, replace=False) for n in range(9)])
    whole = top_k(users, items, k=20, exclude=seen)
    monkeypatch.setattr(search, "ITEMS_AT_ONCE", 7)
    parts = top_k(users, items, k=20, exclude=seen)
    by_any_score = top_k_of(lambda rows: users[rows] @ items.T, n_users=9, n_items=200, k=20, exclude=seen)
    for one, other in zip((*whole, *whole), (*parts, *by_any_score), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_value_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="a value is not finite"):
        top_k(np.full((1, 1), np.nan, "f4"), np.ones((2, 1), "f4"), k=1)


def test_only_allowed_items_are_given():
    items = np.array([[1.0], [3.0], [3.0], [2.0]], dtype="f4")
    head = {"n_users": 1, "n_items": 4, "k": 3, "allowed": np.array([True, False, True, False])}
    found, scores = top_k_of(lambda rows: np.ones((len(rows), 1), "f4") @ items.T, **head)
    assert found.tolist() == [[2, 0, -1]]
    assert scores.tolist() == [[3, 1, -np.inf]]


def test_two_in_half_precision_are_not_rounded():
    generator = np.random.default_rng(0)
    users, items = (generator.normal(size=(n, 64)).astype("f2") for n in (20, 3000))
    found, scores = top_k(users, items, k=50)
    expected, exactly = top_k(users.astype("f4"), items.astype("f4"), k=50)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(scores, exactly)
