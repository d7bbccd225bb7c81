"""The sweep over constructed users: two clusters of items, of which each user takes from both or from one."""

import numpy as np
import pytest
from test_pipeline_head import SECTION, by_topic, make, over_a_month, texts

from lora_rec.data.dataset import EvaluationSet
from lora_rec.data.lists import Lists
from lora_rec.pipeline.head import FittedHead, fit_on_texts
from lora_rec.pipeline.pictures import draw_front
from lora_rec.pipeline.spaces import Rulers, factor_vectors, halve_users, make_spaces
from lora_rec.pipeline.tradeoff import LEVELS, measure_front, measure_of, settings_of, sweep
from lora_rec.rank.spaces import ItemSpaces, popularity_of
from lora_rec.rank.tradeoff import PLAIN
from lora_rec.recipe import RankingSection

N_USERS, N_ITEMS = 40, 20
CLUSTERS = np.repeat(np.eye(2, dtype="f4"), N_ITEMS // 2, axis=0)


def front_of(targets, strategies=("msd",), **categories):
    """Everybody's candidates are the first cluster, then the second."""
    candidates = np.tile(np.arange(N_ITEMS), (N_USERS, 1))
    scores = np.tile(np.linspace(1, 0, N_ITEMS, dtype="f4"), (N_USERS, 1))
    none = Lists.from_arrays([[]] * N_USERS)
    judged = EvaluationSet(np.arange(N_USERS), none, Lists.from_arrays(targets))
    counts = np.arange(N_ITEMS, 0, -1)
    measure = measure_of(judged, Rulers(CLUSTERS, CLUSTERS), counts, n_users=N_USERS, k=4)
    spaces = ItemSpaces(CLUSTERS, CLUSTERS, popularity_of(counts))
    return sweep(spaces, candidates, scores, measure, k=4, strategies=strategies, **categories)


def test_variety_that_everybody_wants_costs_nothing():
    front = front_of([[0, 10]] * N_USERS)
    chosen = front.most_diverse(keep=1.0)
    assert front.plain.values["ild"] == 0
    # Two of four items from each cluster: four of six pairs at distance 1.
    assert chosen.values["ild"] == pytest.approx(2 / 3)
    assert chosen.values["ndcg"] > front.plain.values["ndcg"]


def test_variety_that_nobody_wants():
    front = front_of([[0, 1, 2, 3]] * N_USERS)
    assert front.most_diverse(keep=1.0).values["ild"] == 0
    assert front.kept(front.most_diverse(keep=0.8)) >= 0.8
    assert settings_of(front, RankingSection(keep=0.99))[0].values["ild"] == 0
    with pytest.raises(ValueError, match=r"no setting reaches ild 0.9; the most that was measured is 0.6667"):
        front.most_relevant(least=0.9)


def test_a_strategy_is_looked_at_more_closely_where_it_begins_to_cost():
    front = front_of([[0, 1, 2, 3]] * (N_USERS // 2) + [[0, 10]] * (N_USERS // 2))
    strengths = [p.diversity for p in front.points if p.space == "text"]
    assert strengths == sorted(strengths)
    kept = [front.kept(p) for p in front.points if p.space == "text"]
    for level in LEVELS:
        first = next((i for i, share in enumerate(kept) if share < level), None)
        if first:
            assert strengths[first] - strengths[first - 1] < 0.04


@pytest.mark.parametrize(("n_candidates", "seen"), [(12, 50), (55, 55)])
def test_the_front_is_measured_with_as_many_candidates_as_are_served(monkeypatch, n_candidates, seen):
    asked = []
    original = FittedHead.top_k
    monkeypatch.setattr(
        FittedHead, "top_k", lambda self, wanted, *, k: asked.append(k) or original(self, wanted, k=k)
    )
    split = make(by_topic, over_a_month)
    spaces, rulers = make_spaces(texts(), split)
    fitted = fit_on_texts(SECTION, texts(), split)
    measure_front(fitted, split, spaces, rulers, k=5, n_candidates=n_candidates, strategies=["mmr"])
    assert asked == [seen]


def test_novel_is_measured_once_and_covers_more():
    front = front_of([[0, 19]] * N_USERS, strategies=("novel",))
    assert {p.line for p in front.points} == {"novel"}
    assert max(p.values["novelty"] for p in front.points) > front.plain.values["novelty"]


def test_strategies_of_categories_are_measured_where_there_are_any():
    alone = front_of([[0, 10]] * N_USERS, strategies=("calibrated",))
    assert alone.points == ()
    mix = np.full((N_USERS, 2), 0.5, "f4")
    front = front_of(
        [[0, 10]] * N_USERS, strategies=("calibrated",), category_weights=CLUSTERS, history_mix=mix
    )
    assert {p.line for p in front.points} == {"calibrated"}
    assert front.most_diverse(keep=1.0).values["ild"] == pytest.approx(2 / 3)


def test_without_keep_the_bundle_keeps_the_relevance_order():
    front = front_of([[0, 10]] * N_USERS)
    own, shown = settings_of(front, RankingSection(diversity=0.4, strategy="msd", space="both"))
    assert own.strategy == PLAIN
    assert (shown.strategy, shown.space, shown.diversity) == ("msd", "both", 0.4)


def test_factors_are_alike_where_users_are():
    histories = Lists.from_arrays([[0, 1], [0, 1], [2, 3], [2, 3, 2]])
    vectors = factor_vectors(histories, n_items=5, width=2)
    assert np.allclose(
        vectors @ vectors.T, [[1, 1, 0, 0, 0]] * 2 + [[0, 0, 1, 1, 0]] * 2 + [[0] * 5], atol=1e-5
    )


def test_all_factors_give_the_cosine_of_the_columns():
    rng = np.random.default_rng(0)
    taken = rng.random((30, 8)) < 0.4
    vectors = factor_vectors(Lists.from_arrays(map(np.flatnonzero, taken)), n_items=8)
    columns = taken / np.linalg.norm(taken, axis=0)
    assert np.allclose(vectors @ vectors.T, columns.T @ columns, atol=1e-5)


def test_no_user_is_in_both_halves():
    histories = Lists.from_arrays([[n] for n in range(21)])
    mine, others = halve_users(histories)
    assert len(mine) - len(others) == 1
    assert sorted([*mine.values, *others.values]) == list(range(21))


def test_the_head_that_is_judged_saw_nothing_of_the_validation():
    split = make(by_topic, over_a_month)
    text = texts()
    fitted = fit_on_texts(SECTION, text, split)
    spaces, rulers = make_spaces(text, split)
    front = measure_front(fitted, split, spaces, rulers, k=5, n_candidates=20, strategies=["novel"])
    assert front.n_users == len(split.validation)
    # The refitted head has the validation items in its weights, and would look better than it is.
    lists, _ = fitted.top_k(split.validation, k=5)
    measure = measure_of(split.validation, rulers, split.item_counts(), n_users=split.n_users, k=5)
    assert front.plain.values["ndcg"] < measure(lists)["ndcg"] - 0.01
    picture = draw_front(front, front.most_diverse(keep=0.95))
    assert picture.startswith(b"\x89PNG")
