import numpy as np
import pytest

from lora_rec.data.lists import Lists
from lora_rec.rank.rerank import rerank
from lora_rec.rank.search import top_k

STRATEGIES = ["mmr", "msd", "dpp", "ssd"]


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


def test_a_value_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="a value is not finite"):
        top_k(np.full((1, 1), np.nan, "f4"), np.ones((2, 1), "f4"), k=1)


def two_clusters():
    vectors = np.repeat(np.eye(2, dtype="f4"), 5, axis=0) + 0.01 * np.random.default_rng(0).normal(
        size=(10, 2)
    )
    return np.arange(10), np.linspace(1, 0.5, 10).astype("f4"), vectors.astype("f4")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_zero_keeps_the_relevance_order_exactly(strategy):
    items, scores, vectors = two_clusters()
    found, kept = rerank(items, scores, vectors, k=6, diversity=0.0, strategy=strategy)
    assert found.tolist() == [0, 1, 2, 3, 4, 5]
    assert kept.tolist() == scores[:6].tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_takes_from_both_clusters(strategy):
    items, scores, vectors = two_clusters()
    found, _ = rerank(items, scores, vectors, k=2, diversity=1.0, strategy=strategy)
    assert sorted(found // 5) == [0, 1]


def test_fewer_candidates_than_k_and_empty_slots():
    items, scores, vectors = two_clusters()
    slots = np.array([3, 7, -1, -1])
    found, _ = rerank(slots, np.array([2, 1, -np.inf, -np.inf], "f4"), vectors, k=3, diversity=0.5)
    assert sorted(found.tolist()) == [3, 7]


def test_equal_scores_and_equal_vectors():
    found, _ = rerank(np.arange(4), np.ones(4, "f4"), np.ones((4, 3), "f4"), k=3, diversity=0.7)
    assert len(set(found.tolist())) == 3


def test_bad_values_are_refused():
    items, scores, vectors = two_clusters()
    with pytest.raises(ValueError, match="diversity: 1.5 is not in"):
        rerank(items, scores, vectors, k=2, diversity=1.5)
    vectors[0] = np.nan
    with pytest.raises(ValueError, match="a candidate's vector is not finite"):
        rerank(items, scores, vectors, k=2, diversity=0.5)
