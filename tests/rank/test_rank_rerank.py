import warnings

import numpy as np
import pytest
from pyversity import diversify

from lora_rec.data.lists import Lists
from lora_rec.metrics.diversity import ild_at_k
from lora_rec.rank.categories import Categories
from lora_rec.rank.rerank import rerank_lists
from lora_rec.schema import CATEGORY_STRATEGIES, STRATEGIES, VECTOR_STRATEGIES

POPULARITY = np.random.default_rng(5).random(300).astype("f4")


def two_clusters():
    """Ten items, the first five of one kind and the more relevant."""
    noise = np.random.default_rng(0).normal(size=(10, 2))
    vectors = np.repeat(np.eye(2), 5, axis=0) + 0.01 * noise
    return np.arange(10)[None], np.linspace(1, 0.5, 10).astype("f4")[None], vectors.astype("f4")


def by_category(*fields, likes=(0, 5)):
    """Weights of the items' categories and the mix of one history."""
    categories = Categories.from_field(fields or ["war"] * 5 + ["love"] * 5)
    return {
        "category_weights": categories.weights,
        "history_mix": categories.mix(Lists.from_arrays([list(likes)])),
    }


def many(n_users=200, n=40, width=32, seed=0):
    """Random candidates, their relevance, vectors and categories."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(300, width)).astype("f4")
    candidates = np.stack([generator.permutation(300)[:n] for _ in range(n_users)])
    scores = -np.sort(-generator.random((n_users, n)), axis=1).astype("f4")
    categories = Categories.from_field([str(kind) for kind in generator.integers(0, 6, 300)])
    histories = Lists.from_arrays(list(generator.integers(0, 300, (n_users, 8))))
    return candidates, scores, vectors, categories.weights, categories.mix(histories)


@pytest.mark.parametrize("strategy", VECTOR_STRATEGIES)
@pytest.mark.parametrize("diversity", [0.2, 0.6])
def test_the_lists_are_those_of_pyversity(strategy, diversity):
    candidates, scores, vectors, *_ = many(n_users=40)
    scores = (scores - scores.min(axis=1, keepdims=True)) / np.ptp(scores, axis=1, keepdims=True)
    found, _ = rerank_lists(candidates, scores, vectors, k=10, diversity=diversity, strategy=strategy)
    for row, items in enumerate(candidates):
        peer = diversify(vectors[items], scores[row], 10, strategy=strategy, diversity=diversity)
        assert found[row].tolist() == items[peer.indices].tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_zero_is_the_relevance_order_exactly(strategy):
    candidates, scores, vectors, weights, mix = many()
    scores[:, 3] = scores[:, 2]  # a tie keeps its order, too
    found, kept = rerank_lists(
        candidates,
        scores,
        vectors,
        k=8,
        diversity=0,
        strategy=strategy,
        category_weights=weights,
        history_mix=mix,
        popularity=POPULARITY,
    )
    assert (found == candidates[:, :8]).all()
    assert (kept == scores[:, :8]).all()


def gain(strategy, found, candidates, vectors, weights, mix):
    """What a strategy is after, on average over users."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if strategy == "cover":
        near = np.clip(unit[found] @ unit[candidates].transpose(0, 2, 1), 0, 1)
        return np.sqrt(near.sum(axis=1)).sum(axis=1).mean()
    if strategy == "dpp":
        return np.linalg.slogdet(unit[found] @ unit[found].transpose(0, 2, 1)).logabsdet.mean()
    if strategy == "xquad":
        return (mix * (1 - np.prod(1 - weights[found], axis=1))).sum(axis=1).mean()
    if strategy == "novel":
        return -POPULARITY[found].mean()
    if strategy == "calibrated":
        smooth = 0.99 * weights[found].mean(axis=1) + 0.01 * mix
        return -(mix * np.log(np.where(mix > 0, mix, 1) / np.where(mix > 0, smooth, 1))).sum(axis=1).mean()
    return ild_at_k(found, vectors, k=found.shape[1]).mean()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_more_diversity_costs_relevance_step_by_step(strategy):
    candidates, scores, vectors, weights, mix = many(width=8)
    relevance, gained = [], []
    for diversity in (0, 0.25, 0.5, 0.75, 1):
        found, kept = rerank_lists(
            candidates,
            scores,
            vectors,
            k=6,
            diversity=diversity,
            strategy=strategy,
            category_weights=weights,
            history_mix=mix,
            popularity=POPULARITY,
        )
        relevance.append(kept.mean())
        gained.append(gain(strategy, found, candidates, vectors, weights, mix))
    assert (np.diff(relevance) <= 0).all()
    assert relevance[-1] < relevance[0]
    assert (np.diff(gained) >= -1e-3).all()
    assert gained[-1] > gained[0]


@pytest.mark.parametrize("strategy", VECTOR_STRATEGIES)
def test_one_takes_from_both_clusters(strategy):
    found, _ = rerank_lists(*two_clusters(), k=2, diversity=1, strategy=strategy)
    assert sorted(found[0] // 5) == [0, 1]


def test_calibration_follows_the_history():
    candidates, scores, vectors = two_clusters()
    for likes, n_love in (((0, 1, 5), 2), ((0, 5), 3), ((0, 1), 0)):
        # One third love of six items is two of them, and one half is three.
        found, _ = rerank_lists(
            candidates,
            scores,
            vectors,
            k=6 if n_love else 5,
            diversity=1,
            strategy="calibrated",
            **by_category(likes=likes),
        )
        assert (found[0] >= 5).sum() == n_love


def test_xquad_takes_one_of_each_category_that_is_liked_and_then_by_relevance():
    candidates, scores, vectors = two_clusters()
    for likes, expected in (((0, 5), [0, 5, 1]), ((0,), [0, 1, 2])):
        categories = by_category(likes=likes)
        found, _ = rerank_lists(
            candidates, scores, vectors, k=3, diversity=0.9, strategy="xquad", **categories
        )
        assert found[0].tolist() == expected


@pytest.mark.parametrize("strategy", CATEGORY_STRATEGIES)
@pytest.mark.parametrize("fields", [["war"] * 10, [""] * 10])
def test_one_category_for_all_or_none_is_the_relevance_order(strategy, fields):
    candidates, scores, vectors = two_clusters()
    found, _ = rerank_lists(
        candidates, scores, vectors, k=4, diversity=0.5, strategy=strategy, **by_category(*fields)
    )
    assert found[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fewer_candidates_than_places_and_empty_slots(strategy):
    _, _, vectors = two_clusters()
    categories = by_category()
    candidates = np.array([[3, 7, -1, -1], [-1, -1, -1, -1], [1, 2, 8, 9]])
    scores = np.where(candidates < 0, -np.inf, [[4, 3, 2, 1]]).astype("f4")
    mix = np.repeat(categories["history_mix"], 3, axis=0)
    found, kept = rerank_lists(
        candidates,
        scores,
        vectors,
        k=9,
        diversity=0.5,
        strategy=strategy,
        popularity=POPULARITY,
        **categories | {"history_mix": mix},
    )
    assert found.shape == (3, 4)
    assert sorted(found[0, :2]) == [3, 7]
    assert found[0, 2:].tolist() == [-1, -1]
    assert kept[0, 2:].tolist() == [-np.inf, -np.inf]
    assert (found[1] == -1).all()
    assert sorted(found[2]) == [1, 2, 8, 9]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_of_equal_items_the_earlier_is_taken(strategy):
    candidates = np.array([[4, 1, 0, 3]])
    found, _ = rerank_lists(
        candidates,
        np.ones((1, 4), "f4"),
        np.ones((10, 3), "f4"),
        k=3,
        diversity=0.7,
        strategy=strategy,
        popularity=np.ones(10, "f4"),
        **by_category(*["war"] * 10),
    )
    assert found.tolist() == [[4, 1, 0]]


@pytest.mark.parametrize("strategy", ["mmr", "msd", "dpp", "ssd"])
def test_a_copy_waits_until_there_is_nothing_else(strategy):
    vectors = np.eye(3, dtype="f4")[[0, 0, 1, 2]]
    found, _ = rerank_lists(
        np.arange(4)[None], np.ones((1, 4), "f4"), vectors, k=4, diversity=0.5, strategy=strategy
    )
    assert found.tolist() == [[0, 2, 3, 1]]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_user_gets_what_many_get(strategy):
    candidates, scores, vectors, weights, mix = many(n_users=60)
    candidates[7, 5:], scores[7, 5:] = -1, -np.inf
    settings = {"k": 8, "diversity": 0.4, "strategy": strategy, "category_weights": weights}
    settings |= {"popularity": POPULARITY, "explore": 0.3, "seed": 3}
    together, _ = rerank_lists(candidates, scores, vectors, history_mix=mix, **settings)
    for row in range(60):
        rows = slice(row, row + 1)
        alone, _ = rerank_lists(candidates[rows], scores[rows], vectors, history_mix=mix[rows], **settings)
        assert alone[0].tolist() == together[row].tolist()


def test_bad_values_are_refused():
    candidates, scores, vectors = two_clusters()
    for settings, message in (
        ({"diversity": 1.5}, r"diversity: 1.5 is not in \[0, 1\]"),
        ({"diversity": float("nan")}, "diversity: nan is not in"),
        ({"k": 0}, "k: 0 is below 1"),
        ({"strategy": "mrm"}, "strategy: 'mrm' is unknown; give one of mmr, msd"),
        ({"strategy": "calibrated"}, "strategy: 'calibrated' needs categories"),
        ({"strategy": "novel"}, "strategy: 'novel' needs how often items were taken; give popularity"),
        ({"explore": 2}, r"explore: 2 is not in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            rerank_lists(candidates, scores, vectors, **{"k": 2, "diversity": 0.5} | settings)
    with pytest.raises(ValueError, match="scores: a candidate's score is not finite"):
        rerank_lists(candidates, scores * np.nan, vectors, k=2, diversity=0.5)
    vectors[3] = np.nan
    with pytest.raises(ValueError, match="item_vectors: a candidate's vector is not finite"):
        rerank_lists(candidates, scores, vectors, k=2, diversity=0.5)


@pytest.mark.parametrize("strategy", ["mmr", "dpp"])
@pytest.mark.parametrize("diversity", [0.3, 1.0])
def test_a_user_with_few_candidates_beside_one_with_many(strategy, diversity):
    candidates, scores, vectors, *_ = many(n_users=2, n=200)
    candidates[1, 5:] = -1
    settings = {"k": 3, "diversity": diversity, "strategy": strategy}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        items, _ = rerank_lists(candidates, scores, vectors, **settings)
    alone, _ = rerank_lists(candidates[1:, :5], scores[1:, :5], vectors, **settings)
    np.testing.assert_array_equal(items[1], alone[0])
