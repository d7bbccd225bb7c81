"""Rules of `Recommender`, on a bundle whose titles are `war war0` ... `love love19`."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import lora_rec
from lora_rec.errors import DataError
from lora_rec.rank import catalogue
from lora_rec.rank.head import RankingHead
from lora_rec.schema import STRATEGIES

HISTORY = ["i3", "i5", "i23"]


def by_title(bundle, **ranking):
    """The bundle with the words of the titles as categories."""
    rec = lora_rec.load(bundle)
    ranking = {"category_field": "title", "category_separator": " "} | ranking
    return replace(rec, manifest=replace(rec.manifest, ranking=replace(rec.manifest.ranking, **ranking)))


def ids(items):
    return [item.item_id for item in items]


def n_love(items):
    return sum(item.title.startswith("love") for item in items)


def test_left_out_means_the_bundles_own(bundle):
    plain, own = by_title(bundle), by_title(bundle, diversity=0.9, strategy="msd")
    given = ids(plain.recommend(HISTORY, k=6, diversity=0.9, strategy="msd"))
    assert ids(own.recommend(HISTORY, k=6)) == given
    assert ids(own.recommend(HISTORY, k=6, diversity=0)) == ids(plain.recommend(HISTORY, k=6)) != given


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gives_a_list(bundle, strategy):
    found = by_title(bundle).recommend(HISTORY, k=6, diversity=0.5, strategy=strategy)
    assert len(set(ids(found)) - set(HISTORY)) == 6


@pytest.mark.parametrize("shape", [(3, 8), (1, 8), (2, 3)])
def test_vectors_of_users_that_do_not_fit_are_refused(bundle, shape):
    rec = lora_rec.load(bundle)
    with pytest.raises(
        DataError, match=r"user_embeddings: shape \(.*\) where \(2, 8\) is needed; give one row"
    ):
        rec.recommend_users({"a": ["i3"], "b": ["i5"]}, user_embeddings=np.ones(shape, "f4"))
    with pytest.raises(DataError, match="user_embeddings: a value is not finite"):
        rec.recommend(HISTORY, user_embedding=np.full(8, np.nan, "f4"))


def test_a_series_of_histories_is_read_by_its_index(bundle):
    rec = lora_rec.load(bundle)
    log = pd.DataFrame({"user": ["ann", "ann", "bob"], "item": ["i3", "i5", "i23"], "plays": [2.0, 1.0, 1.0]})
    found = rec.recommend_users(
        log.groupby("user")["item"].apply(list), strengths=log.groupby("user")["plays"].apply(list), k=4
    )
    plain = {"ann": ["i3", "i5"], "bob": ["i23"]}
    assert found == rec.recommend_users(plain, strengths={"ann": [2.0, 1.0], "bob": [1.0]}, k=4)
    assert found.user_ids == ("ann", "bob")
    vectors = np.ones((2, 8), "f4")
    expected = rec.recommend_users(plain, user_embeddings=vectors, explain=True)
    assert rec.recommend_users(plain, user_embeddings=vectors.tolist(), explain=True) == expected


def test_an_unknown_id_in_a_large_catalogue_is_named_at_once(bundle, monkeypatch):
    rec = lora_rec.load(bundle)
    with pytest.raises(DataError, match=r"unknown item id 'i99' \(nearest: i9, .*\), 'i98' \(nearest: i9,"):
        rec.recommend(["i99", "i98"])
    monkeypatch.setattr(catalogue, "HINTED", 60)
    with pytest.raises(DataError, match=r"unknown item id 'i99' \(nearest: i9, .*\), 'i98'; the catalogue"):
        rec.recommend(["i99", "i98"])


def test_quotas_score_the_catalogue_once(bundle, monkeypatch):
    rec = by_title(bundle)
    scores, calls = RankingHead.scores, []

    def counted(*args):
        calls.append(1)
        return scores(*args)

    monkeypatch.setattr(RankingHead, "scores", counted)
    rec.recommend(HISTORY, k=6, n_candidates=8, quotas={"love": (2, 2), "war": (1, None), "war1": (0, 1)})
    assert len(calls) == 1


def test_a_user_for_whom_nothing_is_left_does_not_spoil_the_explanations(bundle):
    rec = lora_rec.load(bundle)
    table = rec.recommend_users({"ann": ["i3"], "bob": rec.item_ids}, k=2, explain=True)
    assert [len(row) for row in table.rows] == [2, 0]
    assert all(item.explanation is not None for item in table.rows[0])


def test_excluded_items_and_categories(bundle):
    rec = by_title(bundle)
    for diversity in (0, 0.5):
        first = rec.recommend(HISTORY, k=1, diversity=diversity)[0].item_id
        assert first not in ids(rec.recommend(HISTORY, k=40, diversity=diversity, exclude=[first]))
        found = rec.recommend(HISTORY, k=40, diversity=diversity, exclude_categories=["war", "love0"])
        assert len(found) == n_love(found) == 18
    with pytest.raises(DataError, match="exclude: unknown item id 'i99'"):
        rec.recommend(HISTORY, exclude=["i99"])
    with pytest.raises(DataError, match="exclude_categories: 'war' is one string; give a list"):
        rec.recommend(HISTORY, exclude_categories="war")


def test_quotas_reach_below_the_candidates(bundle):
    rec = by_title(bundle)
    for diversity in (0, 0.5):
        settings = {"k": 6, "diversity": diversity, "n_candidates": 6}
        found = rec.recommend_users({"a": ["i3"], "b": ["i23"]}, quotas={"love": (2, 2)}, **settings)
        assert [n_love(row) for row in found.rows] == [2, 2]
        assert [len(row) for row in found.rows] == [6, 6]
    with pytest.raises(DataError, match="at least 2 of 'love' are asked for, and there are 0 such"):
        rec.recommend(HISTORY, k=6, quotas={"love": (2, None)}, exclude_categories=["love"])


def test_exploration_is_drawn_by_user_and_seed(bundle):
    rec = by_title(bundle)
    users = {"a": ["i3"], "b": ["i23"], "c": ["i3"]}
    plain = rec.recommend_users(users, k=10)
    drawn = rec.recommend_users(users, k=10, explore=0.2, seed=1)
    for before, after in zip(plain.rows, drawn.rows, strict=True):
        assert len(set(ids(after)) - set(ids(before))) == 2
    assert ids(drawn.rows[0]) == ids(drawn.rows[2]) == ids(rec.recommend(["i3"], explore=0.2, seed=1))
    lists = {tuple(ids(rec.recommend(["i3"], explore=0.2, seed=seed))) for seed in range(5)}
    assert len(lists) > 1


def test_categories_that_a_bundle_does_not_have(bundle):
    rec = lora_rec.load(bundle)
    for settings, asker in (
        ({"strategy": "calibrated", "diversity": 0.5}, "strategy: 'calibrated'"),
        ({"quotas": {"war": (1, 2)}}, "quotas"),
        ({"exclude_categories": ["war"]}, "exclude_categories"),
    ):
        with pytest.raises(DataError, match=f"{asker}: needs categories, .* set ranking.category_field"):
            rec.recommend(HISTORY, **settings)
    with pytest.raises(DataError, match="category_field: there is no field 'genres'; the items have: title"):
        _ = by_title(bundle, category_field="genres").categories


def test_settings_out_of_range(bundle):
    rec = lora_rec.load(bundle)
    for settings, message in (
        ({"diversity": np.nan}, "diversity: nan"),
        ({"strategy": "mrm"}, "strategy: 'mrm' is unknown"),
        ({"explore": -1}, "explore: -1 is not in"),
        ({"n_candidates": 0}, "n_candidates: 0; give a whole number above 0"),
        ({"n_candidates": 2.5}, "n_candidates: 2.5; give a whole number"),
        ({"diversity": 0, "space": "bogus"}, "space: 'bogus' is unknown; give one of text, factors, both"),
        ({"diversity": 0.5, "strategy": "novel", "space": "both"}, "space: has no effect on 'novel'"),
    ):
        with pytest.raises(ValueError, match=message):
            rec.recommend(HISTORY, **settings)
