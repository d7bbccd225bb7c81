"""Chances of liking: honest after calibration, and reported by the recipe."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from objective_runs import tree_of

import lora_rec
from lora_rec.config import build_config
from lora_rec.errors import BundleError
from lora_rec.metrics import auc, expected_calibration_error
from lora_rec.pipeline.data import prepare_data, prepare_texts
from lora_rec.pipeline.interest import (
    Calibration,
    LabelledPairs,
    calibrate,
    interest_line,
    pairs_of,
    report_interest,
)
from lora_rec.rank.interest import InterestModel
from lora_rec.recipe import Recipe


def test_calibration_finds_the_slope_and_offset_that_made_the_labels():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=20_000) * 3 + 1
    liked = generator.random(20_000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))
    found = calibrate(logits, liked)
    # Standard errors are near .01 and .03.
    assert found.slope == pytest.approx(0.5, abs=0.05)
    assert found.offset == pytest.approx(-1, abs=0.15)
    before = expected_calibration_error(Calibration(1, 0).chances(logits), liked)
    assert expected_calibration_error(found.chances(logits), liked) < 0.02 < 0.1 < before


def test_labels_that_are_told_without_error_have_no_endless_slope():
    found = calibrate(np.array([-1.0, -2.0, 1.0, 2.0]), np.array([False, False, True, True]))
    assert 0 < found.slope < 10
    assert found.chances(np.array([1.5]))[0] < 1
    flat = calibrate(np.zeros(4), np.array([True, True, True, False]))
    assert flat.chances(np.zeros(1))[0] == pytest.approx((3 * 4 / 5 + 1 / 3) / 4)  # Platt's targets


def test_labels_that_are_all_alike_calibrate_nothing(caplog):
    found = calibrate(np.array([-1.0, 2.0]), np.array([True, True]))
    assert found == Calibration(1.0, 0.0)
    assert "all 2 validation pairs are liked" in caplog.text


def test_a_test_without_dislikes_is_told_and_not_an_error():
    model = SimpleNamespace(task_numbers={}, user_tower=SimpleNamespace(width=2))
    users, items = np.eye(2, dtype="f4"), np.eye(2, dtype="f4")
    pairs = LabelledPairs(np.array([0, 1]), np.array([0, 1]), np.array([True, True]))
    mixed = LabelledPairs(pairs.texts, pairs.items, np.array([True, False]))
    found = report_interest(mixed, pairs, model, users, items, temperature=0.1)
    assert found["auc"] is None and json.loads(json.dumps(found, allow_nan=False))["liked"] == 1
    assert "AUC undefined on 2 test pairs, 100% liked" in interest_line(found)


def test_calibration_error_by_hand():
    chances = [0.1, 0.15, 0.9, 0.95]
    labels = [False, True, True, False]
    expected = (2 * abs(0.125 - 0.5) + 2 * abs(0.925 - 0.5)) / 4
    assert expected_calibration_error(chances, labels, n_bins=5) == pytest.approx(expected)
    assert expected_calibration_error([1.0], [True]) == 0
    with pytest.raises(ValueError, match="one is outside"):
        expected_calibration_error([1.1], [True])
    with pytest.raises(ValueError, match="give as many, at least 1"):
        expected_calibration_error([], [])


def test_auc_is_the_share_of_pairs_in_order():
    generator = np.random.default_rng(0)
    scores, labels = generator.integers(0, 9, 80), generator.random(80) < 0.4
    gaps = scores[labels][:, None] - scores[~labels]
    assert auc(scores, labels) == pytest.approx(((gaps > 0) + (gaps == 0) / 2).mean())
    assert math.isnan(auc([1, 2], [True, True]))


def test_the_recipe_reports_calibrated_chances(recipe_tree, tmp_path, capsys):
    import runpy
    from pathlib import Path

    tree = tree_of("interest", recipe_tree, tmp_path, epochs=3, learning_rate=0.02)
    tree |= {part: recipe_tree[part] for part in ("head", "ranking")}
    script = runpy.run_path(str(Path(__file__).parents[2] / "recipes" / "two_tower.py"))
    script["run"](build_config(Recipe, tree))
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    found = metrics["interest"]
    assert found["n"] == 60
    assert 0.5 < found["liked"] < 0.9
    assert found["auc"] > 0.6
    assert found["calibration_error"] < 0.3
    recipe = build_config(Recipe, tree)
    dataset, split = prepare_data(recipe.data)
    _, texts = prepare_texts(recipe, dataset, split)
    pairs = pairs_of(dataset, split.test, texts.test_texts, recipe.objectives, n_items=dataset.n_items)
    bases = {f"{part}_backbone": tree[f"{part}_tower"]["backbone"] for part in ("user", "item")}
    towers = lora_rec.load_towers(tmp_path / "out", **bases)
    users = towers.encode_users([texts.users[text] for text in pairs.texts])
    items = towers.encode_items([texts.items[item] for item in pairs.items])
    chances = InterestModel.load(tmp_path / "out").chances(users, items)
    # Encoded again, log-odds differ by .002, and two near ties of 60 change places.
    assert auc(chances, pairs.liked) == pytest.approx(found["auc"], abs=4e-3)
    error = expected_calibration_error(chances, pairs.liked)
    assert error == pytest.approx(found["calibration_error"], abs=0.1)  # a bin may lose a pair to rounding
    assert f"interest: AUC {found['auc']:.4f} on 60 test pairs" in capsys.readouterr().out


def test_a_bundle_that_never_learned_it_says_so(bundle):
    with pytest.raises(BundleError, match="did not learn who likes what; train with objectives.interest"):
        InterestModel.load(bundle)
