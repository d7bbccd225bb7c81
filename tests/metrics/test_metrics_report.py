import subprocess
import sys
from math import log2, sqrt

import numpy as np
import pytest

import lora_rec.metrics
from lora_rec.metrics import (
    bootstrap_interval,
    evaluate_lists,
    format_table,
    mean_over_users,
    paired_difference,
)


def test_evaluate_lists_by_hand():
    scores = evaluate_lists(
        np.array([[0, 1, 5], [2, 0, 5], [1, -1, -1]]),
        [[1, 3], [2], []],  # the last user has nothing to be judged by
        item_vectors=np.eye(6),
        item_counts=np.array([3, 0, 1, 0, 0, 0]),
        n_users=3,
        k=2,
    )
    assert scores == pytest.approx(
        {
            "recall@2": 1 / 2 * (1 / 2 + 1),
            "ndcg@2": 1 / 2 * ((1 / log2(3)) / (1 + 1 / log2(3)) + 1),
            "mrr@2": 1 / 2 * (1 / 2 + 1),
            "hit_rate@2": 1,
            "ild@2": 1 / 3 * (1 + 1 + 0),
            "coverage@2": 3 / 6,
            "novelty@2": 1 / 3 * ((0 + 2) / 2 + (1 + 0) / 2 + 2),
        }
    )
    assert all(type(value) is float for value in scores.values())


def test_evaluate_lists_says_which_metric_has_no_value():
    with pytest.raises(ValueError, match="recall@1: none of 1 users has a value"):
        evaluate_lists(np.array([[0]]), [[]], item_vectors=np.eye(2), item_counts=np.ones(2), n_users=3, k=1)
    with pytest.raises(ValueError, match="novelty@1: none of 1 users has a value"):
        evaluate_lists(
            np.array([[-1]]), [[0]], item_vectors=np.eye(2), item_counts=np.ones(2), n_users=3, k=1
        )


def test_mean_over_users_refuses_a_matrix():
    with pytest.raises(ValueError, match=r"ndcg: shape \(2, 2\) is not \(U,\)"):
        mean_over_users(np.eye(2), name="ndcg")


def test_bootstrap_interval_is_that_of_the_normal_law():
    # 400 values, half 0 and half 1: the mean's standard error is 0.5 / 20. The tolerance is over six standard
    # errors of a quantile from 2000 resamples, and the seed is fixed.
    low, high = bootstrap_interval(np.repeat([0.0, 1.0], 200), n_resamples=2000)
    assert low == pytest.approx(0.5 - 1.96 * 0.5 / sqrt(400), abs=0.01)
    assert high == pytest.approx(0.5 + 1.96 * 0.5 / sqrt(400), abs=0.01)


def test_bootstrap_interval_is_repeatable_leaves_out_nan_and_widens_with_the_level():
    values = np.arange(20.0)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval([np.nan, *values], seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    (low90, high90), (low99, high99) = (bootstrap_interval(values, level=level) for level in (0.9, 0.99))
    assert low99 < low90 < values.mean() < high90 < high99


def test_bootstrap_interval_refuses():
    with pytest.raises(ValueError, match=r"level: 95 is not within \(0, 1\)"):
        bootstrap_interval([1.0], level=95)
    with pytest.raises(ValueError, match="n_resamples: 0 is below 1"):
        bootstrap_interval([1.0], n_resamples=0)
    with pytest.raises(ValueError, match="values: none of 2 users has a value"):
        bootstrap_interval([np.nan, np.nan])


def test_paired_difference_sees_what_two_intervals_hide():
    # The users differ by far more than the systems do, but the first is better for each of them.
    b = np.linspace(0, 1, 50)
    a = b + np.tile([0.01, 0.03], 25)
    difference = paired_difference(a, b)
    assert difference.mean == pytest.approx(0.02)
    assert 0.01 < difference.low < 0.02 < difference.high < 0.03
    assert bootstrap_interval(a)[0] < bootstrap_interval(b)[1]


def test_paired_difference_leaves_out_users_without_a_value_in_either():
    difference = paired_difference([1.0, np.nan, 3.0, 4.0], [0.0, 1.0, np.nan, 1.0])
    assert (difference.mean, difference.n) == ((1 + 3) / 2, 2)
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(1,\) differ"):
        paired_difference([1.0, 2.0], [1.0])


def test_format_table():
    rows = {
        "lora_rec": {"ndcg@10": 0.12345, "ild": 1.0, "mrr@10": 0.5},
        "als": {"ndcg@10": 0.1, "ild": np.nan},
    }
    assert format_table(rows, columns=["ndcg@10", "ild"], title_column="model").splitlines() == [
        "| model    | ndcg@10 |    ild |",
        "| :------- | ------: | -----: |",
        "| lora_rec |  0.1235 | 1.0000 |",
        "| als      |  0.1000 |    nan |",
    ]
    assert format_table({}, columns=[], title_column="x") == "| x   |\n| :-- |"
    with pytest.raises(ValueError, match=r"rows\['als'\]: no mrr@10; it has ndcg@10, ild"):
        format_table(rows, columns=["ild", "mrr@10"])


def test_public_names_exist_once():
    assert len(set(lora_rec.metrics.__all__)) == len(lora_rec.metrics.__all__)
    assert all(hasattr(lora_rec.metrics, name) for name in lora_rec.metrics.__all__)


def test_importing_the_metrics_stays_light():
    heavy = ["torch", "transformers", "pandas", "datasets", "evaluate", "peft"]
    code = f"import sys, lora_rec.metrics; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
