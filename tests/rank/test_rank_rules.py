import itertools

import numpy as np
import pytest

from lora_rec.data.lists import Lists
from lora_rec.errors import DataError
from lora_rec.rank.categories import Categories
from lora_rec.rank.rerank import rerank_lists
from lora_rec.rank.rules import SEVERAL_FIRST, QuotaCount, Quotas, gather_candidates
from lora_rec.rank.search import best_of

KINDS = Categories.from_field(["war"] * 5 + ["love"] * 4 + ["war|love"])
CANDIDATES = np.arange(10)[None]
SCORES = np.linspace(1, 0.5, 10).astype("f4")[None]
VECTORS = np.random.default_rng(0).normal(size=(10, 4)).astype("f4")


def lists(quotas, *, k=4, diversity=0.0, candidates=CANDIDATES, categories=KINDS, **settings):
    rules = Quotas.of(quotas, categories, k=k)
    settings = {"k": k, "diversity": diversity, "quotas": rules} | settings
    return rerank_lists(candidates, SCORES, VECTORS, **settings)[0][0].tolist()


def test_categories_of_a_field():
    categories = Categories.from_field([" Crime | Action|Crime", "", "Action"])
    assert categories.names == ("Action", "Crime")
    assert categories.weights.tolist() == [[0.5, 0.5], [0, 0], [1, 0]]
    assert categories.mix(Lists.from_arrays([[0, 1], [1], []])).tolist() == [[0.5, 0.5], [0, 0], [0, 0]]
    assert Categories.from_field(["a; b"], separator=";").names == ("a", "b")
    with pytest.raises(DataError, match="2,001 categories in 2,001 items, e.g. '0'"):
        Categories.from_field([str(n) for n in range(2001)])
    with pytest.raises(DataError, match="category_separator: empty"):
        Categories.from_field(["a"], separator="")
    with pytest.raises(DataError, match=r"no field 'genre'; did you mean 'genres'\?"):
        Categories.of_items({"genres": ["a"]}, "genre")


def test_quotas_change_as_little_as_they_need_to():
    assert lists({}) == [0, 1, 2, 3]
    assert lists({"love": (1, None)}) == [0, 1, 2, 5]
    assert lists({"war": (None, 1)}) == [0, 5, 6, 7]
    assert lists({"war": (2, 2), "love": (2, 2)}) == [0, 1, 5, 6]
    assert lists({"love": (0, 0)}, k=5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("strategy", ["mmr", "dpp"])
def test_quotas_hold_with_a_strategy(strategy):
    found = lists({"love": (3, 3)}, diversity=0.5, strategy=strategy)
    assert sum(item >= 5 for item in found) == 3


def test_a_list_ends_where_no_candidate_is_left():
    assert lists({"war": (None, 1), "love": (None, 1)}) == [0, 5, -1, -1]


def test_an_item_of_two_categories_counts_for_both():
    both = Categories.from_field(["war", "war|love", "love", *[""] * 7])
    # Two places have to hold two of each, which only the item of both and one more would not do.
    assert lists({"war": (1, None), "love": (1, None)}, k=2, categories=both) == [0, 1]
    with pytest.raises(DataError, match="quotas: at least 2 of 'love' are asked for"):
        lists({"war": (0, 1), "love": (2, 2)}, k=3, candidates=np.arange(10)[None] % 2, categories=both)


@pytest.mark.parametrize("diversity", [0.0, 0.5])
def test_one_item_for_two_quotas_is_found_behind_better_ones_for_one(diversity):
    kinds = Categories.from_field(["child", "child", "child|drawn", "drawn|child", *[""] * 6])
    quotas = {"child": (1, 1), "drawn": (1, None)}
    found = lists(quotas, k=3, categories=kinds, diversity=diversity)
    assert len({2, 3} & {*found}) == 1 and len({0, 1, 2, 3} & {*found}) == 1


def test_what_a_quota_forbids_is_no_candidate():
    """The best of a category are all of one that is forbidden, or of which one is allowed."""
    kinds = Categories.from_field(["fun|gore"] * 12 + ["plain"] * 20 + ["fun"] * 8)
    scores = -np.arange(40, dtype="f4")[None]

    def best(wanted):
        return [best_of(scores.copy(), k=n, allowed=mask) for n, mask in wanted]

    for most in (0, 1):
        rules = Quotas.of({"fun": (2, 4), "gore": (None, most)}, kinds, k=6)
        found, values = gather_candidates(best, n_candidates=15, k=6, allowed=None, quotas=rules)
        places = rerank_lists(found, values, np.eye(40, dtype="f4"), k=6, diversity=0, quotas=rules)[0][0]
        member = kinds.weights[places] > 0
        fun, gore = (member[:, kinds.names.index(name)].sum() for name in ("fun", "gore"))
        assert (places >= 0).all() and 2 <= fun <= 4 and gore <= most


def test_an_item_that_was_taken_does_not_keep_others_out():
    """Only the first is of three; once it is taken, what is of one is as good as there is."""
    kinds = Categories.from_field(["a|b|c", "a", "b", *["a"] * 3, *["b"] * 3, "d"])
    member = Quotas.of({"a": (2, None), "b": (2, None), "c": (1, None)}, kinds, k=5)
    count = QuotaCount(member, CANDIDATES, urgency=np.array([SEVERAL_FIRST]))
    count.take(np.array([0]), np.array([True]))
    assert (~count.blocked(places_left=np.array([4]))[0]).nonzero()[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_the_scarcest_quota_comes_first_where_others_would_fill_up():
    """Two of `rare` are of `full`, too, and better ones of `wide` and `full` would take its two places."""
    kinds = Categories.from_field(["wide|full"] * 4 + ["wide"] * 2 + ["rare|full"] * 2 + ["other"] * 2)
    found = lists({"rare": (2, 4), "wide": (2, 2), "full": (None, 2)}, k=5, categories=kinds)
    assert {6, 7} <= {*found} and len({4, 5} & {*found}) == 2


def test_quotas_that_cannot_be_met():
    for quotas, message in (
        ({"love": (6, None)}, "6 of 'love' are 6 in all, and the list has 4 places"),
        (
            {"love": (4, None), "war": (4, None)},
            "asked for, and there are . such candidates, and no list was",
        ),
        ({"love": (3, 2)}, "quotas: 3 to 2 for 'love'; give 0 <= least <= most"),
        ({"love": 3}, r"quotas: 3 for 'love' is no pair of whole numbers; give \(least, most\)"),
        ({"love": (1.9, 2.9)}, r"quotas: \(1.9, 2.9\) for 'love' is no pair of whole numbers"),
        ({"love": "23"}, "quotas: '23' for 'love' is no pair of whole numbers"),
        ({"live": (1, None)}, "quotas: no item has the category 'live'; did you mean 'love'?"),
    ):
        with pytest.raises(DataError, match=message):
            lists(quotas)
    apart = Categories.from_field(["war"] * 5 + ["love"] * 5)
    with pytest.raises(DataError, match="2 of 'love', 3 of 'war' are 5 in all"):
        lists({"love": (2, None), "war": (3, None)}, categories=apart)
    few = np.array([[0, 1, 2, 3, 4, 5, -1, -1, -1, -1]])
    with pytest.raises(DataError, match="at least 2 of 'love' are asked for, and there are 1 such candidate"):
        lists({"love": (2, None)}, candidates=few)


def test_two_quotas_may_ask_for_more_than_the_list_where_items_count_for_both():
    found = lists({"love": (2, None), "war": (3, None)})
    assert 9 in found and len(found) == 4 and (KINDS.weights[found] > 0).sum() == 5


def test_a_list_is_full_where_one_can_be():
    """The best item is of both, and takes the places of a and b that two others would fill."""
    kinds = Categories.from_field(["a|b", "c|a", "b", "a", "c", "a", "c", "a", "c", "b"])
    for quotas, k in (
        ({"a": (0, 2), "b": (1, 1), "c": (0, 0)}, 4),
        ({"a": (0, 2), "b": (1, 1), "c": (0, 0)}, 3),
    ):
        member, best = Quotas.of(quotas, kinds, k=k), 0
        for some in itertools.combinations(range(10), k):
            counts = member.member[list(some)].sum(axis=0)
            best |= bool(((counts >= member.least) & (counts <= member.most)).all())
        found = [item for item in lists(quotas, k=k, categories=kinds) if item >= 0]
        counts = member.member[found].sum(axis=0)
        assert ((counts >= member.least) & (counts <= member.most)).all()
        assert len(found) == k if best else len(found) < k


def test_candidates_reach_down_to_what_a_quota_needs():
    def best_of_one(n, mask):
        items = np.flatnonzero(np.ones(10, bool) if mask is None else mask)[:n]
        padded = np.append(items, np.full(min(n, 10) - len(items), -1))
        return padded[None], np.where(padded < 0, -np.inf, SCORES[0, padded]).astype("f4")[None]

    def best(wanted):
        return [best_of_one(n, mask) for n, mask in wanted]

    settings = {"n_candidates": 3, "k": 3, "allowed": None}
    assert gather_candidates(best, quotas=None, **settings)[0].tolist() == [[0, 1, 2]]
    rules = Quotas.of({"love": (2, None)}, KINDS, k=3)
    items, scores = gather_candidates(best, quotas=rules, **settings)
    found = items[0][items[0] >= 0]
    assert {0, 1, 2, 5, 6} <= set(found)
    assert (np.diff(found) > 0).all()
    assert (scores[0, : len(found)] == SCORES[0, found]).all()
    assert (items[0, len(found) :] == -1).all()


def test_exploration_takes_its_share_from_below_and_leaves_the_first():
    settings = {"k": 4, "diversity": 0}
    plain, _ = rerank_lists(CANDIDATES, SCORES, VECTORS, **settings)
    drawn = []
    for seed in range(20):
        found, kept = rerank_lists(CANDIDATES, SCORES, VECTORS, explore=0.5, seed=seed, **settings)
        again, _ = rerank_lists(CANDIDATES, SCORES, VECTORS, explore=0.5, seed=seed, **settings)
        assert found.tolist() == again.tolist()
        assert found[0, 0] == plain[0, 0]
        assert len(set(found[0])) == 4
        assert (kept == SCORES[0, found]).all()
        new = set(found[0]) - set(plain[0])
        assert len(new) == 2
        drawn += new
    assert set(drawn) == {4, 5, 6, 7, 8, 9}
    everything, _ = rerank_lists(CANDIDATES, SCORES, VECTORS, explore=1, k=10, diversity=0)
    assert everything[0].tolist() == list(range(10))


def test_exploration_keeps_quotas():
    for seed in range(10):
        found = lists({"love": (1, 1)}, explore=0.5, seed=seed)
        assert len(set(found)) == 4
        assert sum(item >= 5 for item in found) == 1
