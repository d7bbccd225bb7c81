import subprocess
import sys
from math import log2, sqrt

import numpy as np
import pytest

import lora_rec.metrics
from lora_rec.metrics import evaluate_lists, format_table


def test_evaluate_lists_by_hand():
    scores = evaluate_lists(
        np.array([[0, 1, 5], [2, 0, 5], [1, -1, -1]]),
        [[1, 3], [2], []],  # the last user has nothing to be judged by
        item_vectors=np.eye(6),
        item_counts=np.array([3, 0, 1, 0, 0, 0]),
        n_users=3,
        item_categories=np.array([[1, 0], [1, 0], [0, 0], [0, 1], [0, 0], [0, 0]]),
        histories=[[0], [0, 3, 3], []],
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
            "ild_min@2": 1 / 3 * (1 + 1 + 0),
            "category_ild@2": 1 / 3 * (0 + 1 + 0),
            "category_entropy@2": 0,  # of the two lists that have a category
            "category_coverage@2": 1 / 3 * (1 / 2 + 1 / 2 + 1 / 2),
            "calibration_error@2": 1 / 2 * (1 / 3 * log2(1 / 3 / (0.99 + 0.01 / 3)) + 2 / 3 * log2(1 / 0.01)),
            "gini@2": (-5 * 0 - 3 * 0 - 1 * 0 + 1 * 1 + 3 * 2 + 5 * 2) / (5 * 5),
            "exposure_entropy@2": 2 * 2 / 5 * log2(5 / 2) + 1 / 5 * log2(5),
            "personalization@2": 1 - 1 / 3 * (1 / 2 + 1 / sqrt(2) + 0),
            "popularity@2": 1 / 3 * ((3 + 0) / 2 + (1 + 3) / 2 + 0),
            "popularity_lift@2": 1 / 2 * ((3 / 2 / 3 - 1) + (2 / 1 - 1)),
            "new_items@2": 1 / 3 * (1 / 2 + 0 + 1),
            "serendipity@2": 1 / 2 * ((5 / 6 - 0) / 2 + ((6 - 5) / 6) / 2),
        }
    )
    assert all(type(value) is float for value in scores.values())


def test_evaluate_lists_leaves_out_what_it_cannot_know():
    lists, relevant = np.array([[0, 1], [2, 0]]), [[1], [2]]
    always = {"recall", "ndcg", "mrr", "hit_rate", "personalization"}
    whole = always | {"coverage", "gini", "exposure_entropy"}
    counted = whole | {"popularity", "new_items", "serendipity"}
    counts, categories, histories = np.ones(3), np.eye(3), [[0], [1]]
    by_category = whole | {"category_ild", "category_entropy", "category_coverage"}
    for inputs, names in (
        ({"n_users": 3, "histories": histories}, always),
        ({"item_vectors": np.eye(3)}, whole | {"ild", "ild_min"}),
        ({"item_counts": counts}, counted),
        ({"item_counts": counts, "n_users": 3}, counted | {"novelty"}),
        ({"item_counts": counts, "histories": histories}, counted | {"popularity_lift"}),
        ({"item_categories": categories}, by_category),
        ({"item_categories": categories, "histories": histories}, by_category | {"calibration_error"}),
    ):
        assert set(evaluate_lists(lists, relevant, k=2, **inputs)) == {f"{name}@2" for name in names}


def test_evaluate_lists_refuses_inputs_about_different_catalogues():
    with pytest.raises(ValueError, match="numbers of items: {'item_vectors': 3, 'item_counts': 2} differ"):
        evaluate_lists(np.array([[0]]), [[0]], item_vectors=np.eye(3), item_counts=np.ones(2), k=1)


def test_evaluate_lists_says_which_metric_has_no_value():
    with pytest.raises(ValueError, match="recall@1: none of 1 users has a value"):
        evaluate_lists(np.array([[0]]), [[]], item_vectors=np.eye(2), item_counts=np.ones(2), n_users=3, k=1)
    with pytest.raises(ValueError, match="novelty@1: none of 1 users has a value"):
        evaluate_lists(
            np.array([[-1]]), [[0]], item_vectors=np.eye(2), item_counts=np.ones(2), n_users=3, k=1
        )


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
