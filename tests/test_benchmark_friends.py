"""What the figures of the case lastfm-friends mean, on made-up friendships."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lora_rec.data.friends import withhold_friends

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import quality
import quality_towers

from lora_rec.errors import DataError
from lora_rec.pipeline import judge_friends as bench

N = 60
FRIENDS = np.array([[a, b] for a in range(N) for b in range(a + 1, N) if (a + b) % 9 == 0])


def test_strangers_are_distinct_and_never_friends():
    pairs = bench.draw_strangers(FRIENDS, n_users=N, n_pairs=300, seed=0)
    assert len({tuple(pair) for pair in pairs}) == 300
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert ((pairs.sum(axis=1)) % 9 > 0).all()
    with pytest.raises(DataError, match="too many users are friends"):
        bench.draw_strangers(FRIENDS, n_users=N, n_pairs=5000, seed=0)


def test_the_truth_has_the_best_values_and_a_constant_half():
    truth = np.zeros((N, N), np.float32)
    truth[FRIENDS[:, 0], FRIENDS[:, 1]] = truth[FRIENDS[:, 1], FRIENDS[:, 0]] = 1
    found = bench.judge_friends(lambda users: truth[users].copy(), FRIENDS, n_users=N, seed=0)
    _, withheld = withhold_friends(FRIENDS, share=0.1, seed=0)
    assert found["auc"].tolist() == [1.0] * len(withheld)
    assert found["ndcg@10"].tolist() == [1.0] * len(np.unique(withheld))
    constant = bench.judge_friends(
        lambda users: np.zeros((len(users), N), np.float32), FRIENDS, n_users=N, seed=0
    )
    assert set(constant["auc"]) == {0.5}
    assert constant["ndcg@10"].mean() < 0.4


def test_baselines_by_hand():
    friends = np.array([[0, 1], [0, 2], [0, 3], [1, 4], [2, 4]])
    users = np.array([0, 3])
    assert bench.common_scorer(friends, 5)(users)[0, 4] == 2
    assert bench.degree_scorer(friends, 5)(users)[1].tolist() == [3, 2, 2, 1, 2]
    found = bench.adamic_adar_scorer(friends, 5)(users)
    assert np.isclose(found[0, 4], 2 / np.log(2))
    assert np.isclose(found[1, 1], 1 / np.log(3))


def test_a_case_runs_what_recommends_what_it_asks_for():
    ours = quality.our_systems(quality.RESULTS)
    friends = quality.friend_systems(quality.RESULTS)
    every = quality.PEERS | ours | friends
    assert quality.systems_for(quality.FRIENDS, every) == friends
    assert quality.systems_for("lastfm", every) == quality.PEERS | ours


def test_towers_that_recommend_friends_were_never_told_any(tmp_path, monkeypatch):
    recipes = []

    def train(prepared, recipe):
        recipes.append(recipe)
        return {"trained_texts": np.full((3, 2), recipe.train.seed, np.float32)}

    monkeypatch.setattr(quality_towers, "_train_on_split", train)
    plays = SimpleNamespace(name="lastfm", folder=tmp_path / "lastfm")
    assert quality_towers.recipe_of(plays, 0).text.is_social
    for seed in (0, 1, 1):
        assert (quality_towers.train_without_friends(plays, seed, tmp_path) == seed).all()
    assert [recipe.train.seed for recipe in recipes] == [0, 1]  # the third call read what the second left
    assert not any(recipe.text.is_social for recipe in recipes)


def test_a_call_with_fewer_seeds_keeps_the_others_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "RESULTS", tmp_path)

    def call(system, seeds, value):
        drawn = {"mind": {system: seeds}}
        header = {"seeds": seeds, "trials": 12, "command": f"{len(seeds)} seeds", "fewer_seeds": drawn}
        header |= {"chosen": {"mind": {system: {}}}, "left_out": {}}
        rows = [{"case": "mind", "system": system, "value": value}]
        header, rows = quality.merge(header, rows, systems=[system], sets=["mind"])
        (tmp_path / "quality.json").write_text(json.dumps([header, *rows]))
        return header, [(r["system"], r["value"]) for r in rows]

    three = [0, 1, 2]
    assert call("minilm", three, 0.1)[0]["fewer_seeds"] == {}
    header, rows = call("lora_rec_towers", [0], 0.2)
    assert rows == [("minilm", 0.1), ("lora_rec_towers", 0.2)]
    assert header["seeds"] == three and header["command"] == "3 seeds"
    assert header["fewer_seeds"] == {"mind": {"lora_rec_towers": [0]}}
    assert call("minilm", three, 0.3)[0]["fewer_seeds"] == {"mind": {"lora_rec_towers": [0]}}
    header, rows = call("lora_rec_towers", three, 0.4)
    assert header["fewer_seeds"] == {} and rows == [("minilm", 0.3), ("lora_rec_towers", 0.4)]


def test_what_was_chosen_and_left_out_stands_in_one_order(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    for case, system in (("mind", "rectools_hstu"), ("mind", "rectools_sasrec"), ("lastfm", "rectools_hstu")):
        header = {
            "seeds": [0],
            "trials": 12,
            "command": "",
            "fewer_seeds": {},
            "chosen": {case: {system: {}}},
        }
        header, _ = quality.merge(
            header | {"left_out": {case: {system: "no times"}}}, [], systems=[system], sets=[case]
        )
        (tmp_path / "quality.json").write_text(json.dumps([header]))
    for key in ("chosen", "left_out"):
        assert list(header[key]) == ["lastfm", "mind"]
        assert list(header[key]["mind"]) == ["rectools_sasrec", "rectools_hstu"]
