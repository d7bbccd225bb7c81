"""What the figures of benchmarks/diversity.py mean, on made-up lists."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import diversity as bench

from lora_rec.rank.tradeoff import PLAIN, Front, Point


def point(strategy, ndcg, ild, coverage):
    names = dict.fromkeys(("recall", "ild_text", "novelty"), 1.0)
    return Point(strategy, "text", 0.5, names | {"ndcg": ndcg, "ild": ild, "coverage": coverage})


def test_each_setting_is_chosen_for_its_own_aim():
    plain = point(PLAIN, 0.2, 0.4, 0.1)
    points = (point("msd", 0.192, 0.6, 0.12), point("novel", 0.191, 0.5, 0.2), point("ssd", 0.201, 0.42, 0.1))
    front = Front(10, 5, 50, plain, points)
    chosen = {name: setting.strategy for name, (_, setting) in bench.choose({0.0: front}).items()}
    assert chosen == {
        "plain": PLAIN,
        "most_ild_at_95": "msd",
        "most_ild_at_95 by re-ranking": "msd",
        "most_coverage_at_95": "novel",
        "most_coverage_at_95 by re-ranking": "novel",
        "best_ndcg": "ssd",
    }
    # More relevance with the same variety is no gain in both.
    alike = Front(10, 5, 50, plain, (point("mmr", 0.21, 0.4, 0.1), point("dpp", 0.1, 0.9, 0.1)))
    assert bench.choose({0.0: alike})["best_ndcg"] == (0.0, plain)


def test_another_head_is_judged_by_the_plain_list_of_the_first():
    first = Front(10, 5, 50, point(PLAIN, 0.2, 0.4, 0.1), (point("novel", 0.191, 0.5, 0.15),))
    second = Front(10, 5, 50, point(PLAIN, 0.21, 0.45, 0.12), (point("novel", 0.195, 0.5, 0.2),))
    chosen = bench.choose({0.0: first, bench.INVERSE_PROPENSITY: second})
    # It keeps .93 of its own plain list's, and .975 of the first's.
    assert chosen["most_coverage_at_95"] == (bench.INVERSE_PROPENSITY, second.points[0])
    assert chosen["most_coverage_at_95 by re-ranking"] == (0.0, first.points[0])
    assert chosen["best_ndcg"] == chosen["inverse_propensity"] == (bench.INVERSE_PROPENSITY, second.plain)


def test_gains_are_shares_of_the_plain_list():
    n_users = 50
    rng = np.random.default_rng(0)
    arrays = {}
    for setting in bench.SETTINGS:
        better = 1.5 if setting == "most_ild_at_95" else 1.0
        for measure in bench.MEASURES:
            arrays[f"{setting}/{measure}"] = np.full(n_users, better * 0.2)
        arrays[f"{setting}/lists"] = np.tile(np.arange(10), (n_users, 1))
    # Every user gets another list of ten of a hundred items, where the others have the same.
    arrays["most_coverage_at_95/lists"] = rng.permuted(np.tile(np.arange(100), (n_users, 1)), axis=1)[:, :10]
    rows = bench.rows_of("made-up", [({}, arrays)] * 2, n_items=100)
    found = {(r["system"], r["metric"]): r for r in rows}
    assert found["plain", "coverage@10"]["value"] == pytest.approx(0.1)
    assert found["lora_rec", "ild_gain_at_95"]["value"] == pytest.approx(0.5)
    assert found["lora_rec", "ndcg_kept"]["value"] == pytest.approx(1.5)
    assert found["lora_rec", "ndcg_gain_at_best"]["value"] == pytest.approx(0)
    assert found["lora_rec", "coverage_gain_at_95"]["value"] > 5
    over_users = found["lora_rec", "coverage_gain_at_95 over users"]
    assert over_users["low"] < over_users["value"] <= over_users["high"]
    assert over_users["n"] == 2


def test_a_finished_piece_is_read_and_another_setting_is_not(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"front": len(calls)}, {"plain/ndcg": np.ones(3)}

    for settings in ({"trials": 1}, {"trials": 1}, {"trials": 2}):
        about, arrays = bench.piece_of("made-up", 0, settings, tmp_path, make)
        assert arrays["plain/ndcg"].tolist() == [1, 1, 1]
    assert len(calls) == about["front"] == 2


def test_a_call_of_some_sets_keeps_what_others_found_with_the_same_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    assert bench.of_earlier_calls({"trials": 12}) is None
    header = {"date": "2026-01-02", "trials": 12, "chosen": {"lastfm": ["a"]}}
    (tmp_path / "diversity.json").write_text(json.dumps([header]))
    found = bench.of_earlier_calls({"trials": 12})
    assert found == {"chosen": {"lastfm": ["a"]}, "dates": {"lastfm": "2026-01-02"}}
    assert bench.of_earlier_calls({"trials": 6}) is None
