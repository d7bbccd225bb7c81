"""What metrics.json says of the certainty of a comparison is what the metrics say of its lists."""

from dataclasses import asdict

import numpy as np
import pytest
from test_pipeline_head import N_ITEMS, by_topic, make, over_a_month

from lora_rec.metrics import (
    bootstrap_interval,
    holm_adjusted,
    ild_at_k,
    ndcg_at_k,
    paired_difference,
    sign_flip_test,
)
from lora_rec.pipeline.evidence import PairedTest, collect_evidence, compare_pairs
from lora_rec.pipeline.ranking import Comparison, LinearChoice
from lora_rec.pipeline.spaces import factor_ruler


@pytest.fixture(scope="module")
def comparison():
    split = make(by_topic, over_a_month)
    made = Comparison(split, ruler=None, factors=factor_ruler(split), k=5)
    made.add_baselines(LinearChoice(100.0, 1.0, 0.0))
    made.lists["ranking_head"] = made.lists["ease"][:, ::-1].copy()  # the same items, the worst first
    return made


def test_intervals_and_tests_are_those_of_the_lists(comparison):
    evidence = collect_evidence(comparison, categories=None)
    targets = list(comparison.split.test.targets)
    ndcg = {name: ndcg_at_k(lists, targets, k=5) for name, lists in comparison.lists.items()}
    ild = {name: ild_at_k(lists, comparison.factors, k=5) for name, lists in comparison.lists.items()}
    assert evidence["intervals"]["ease"]["ndcg@5"] == bootstrap_interval(ndcg["ease"])
    tests = [PairedTest(**tree) for tree in evidence["tests"]]
    # Of systems that are there alone.
    others = ["popularity", "item_cosine", "ease"]
    for metric, values in (("ndcg@5", ndcg), ("ild_factors@5", ild)):
        of_metric = [test for test in tests if test.metric == metric]
        assert [(test.system, test.other) for test in of_metric] == [("ranking_head", o) for o in others]
        p_values = holm_adjusted([sign_flip_test(values["ranking_head"], values[o]) for o in others])
        for test, other, p_value in zip(of_metric, others, p_values, strict=True):
            found = paired_difference(values["ranking_head"], values[other])
            assert asdict(found) == {name: getattr(test, name) for name in ("mean", "low", "high", "n")}
            assert test.p_value == p_value
    # Everybody takes items of one topic, which popularity does not know.
    popular = next(test for test in tests if (test.other, test.metric) == ("popularity", "ndcg@5"))
    assert popular.mean > 0.1 and popular.is_sure
    same = next(test for test in tests if (test.other, test.metric) == ("ease", "ild_factors@5"))
    assert same.mean == pytest.approx(0, abs=1e-12) and not same.is_sure


def test_tests_beside_others_count_as_one_of_more(comparison):
    pairs = [("ranking_head", "ease")]
    alone, beside = compare_pairs(comparison, pairs), compare_pairs(comparison, pairs, n_others=6)
    assert any(test.p_value < 1 for test in alone)
    assert [test.p_value for test in beside] == [min(1, 7 * test.p_value) for test in alone]


def test_the_table_judges_variety_by_users_alone_without_texts(comparison):
    row = comparison.table()["ease"]
    assert "ild@5" not in row
    ild = ild_at_k(comparison.lists["ease"], comparison.factors, k=5)
    assert row["ild_factors@5"] == pytest.approx(ild.mean())
    assert comparison.factors.shape[0] == N_ITEMS
    assert np.allclose(np.linalg.norm(comparison.factors, axis=1), 1, atol=1e-5)
