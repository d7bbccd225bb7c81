"""Known answers of rectools 0.19.0, whose pins do not go with ours.

They were made in an environment of its own (`make benchmark-quality-env` makes one) by
`METRIC(k=3).calc_per_user(...)`, with `METRIC` as in the tests below, `reco` of the lists with `rank` from 1,
`interactions` of RELEVANT, `prev_interactions` of HISTORIES, and all eight items as `catalog`.
"""

import numpy as np
import pytest

from lora_rec.metrics import (
    coverage_at_k,
    hit_rate_at_k,
    ild_at_k,
    mrr_at_k,
    ndcg_at_k,
    novelty_at_k,
    pad_lists,
    popularity_at_k,
    recall_at_k,
    serendipity_at_k,
)

LISTS = pad_lists([[0, 3, 5, 1], [2, 6, 4, 0], [7, 1, 3], [5, 7, 2, 6], [4]], k=4)
RELEVANT = [[5, 3], [0, 1, 6], [7], [2, 3, 4, 5, 6], [4, 0]]
HISTORIES = [[1, 2, 0], [0, 1], [0, 2, 4, 5], [0, 1, 3], [3, 0, 2, 1]]
VECTORS = np.array(
    [[1, 0, 2], [0, 1, -1], [2, 1, 0], [1, 1, 1], [-1, 0, 1], [0, 2, 1], [3, -1, 0], [1, 2, 3.0]]
)
COUNTS = np.bincount(np.concatenate(HISTORIES), minlength=8)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (recall_at_k, [1, 0.333333333333, 1, 0.4, 0.5]),  # Recall
        (hit_rate_at_k, [1, 1, 1, 1, 1]),  # HitRate
        (mrr_at_k, [0.5, 0.5, 1, 1, 1]),  # MRR
        # NDCG(k=3, divide_by_achievable=True); without, the best list has three hits whatever is relevant.
        (ndcg_at_k, [0.693426403617, 0.296081910966, 1, 0.703918089034, 0.613147192765]),
    ],
)
def test_relevance(metric, expected):
    np.testing.assert_allclose(metric(LISTS, RELEVANT, k=3), expected, atol=1e-11)


def test_intra_list_diversity():
    # IntraListDiversity with a PairwiseDistanceCalculator that gives 1 minus the cosine.
    expected = [0.350268887172, 1.198723048032, 0.754387378911, 0.428416176577, 0]
    np.testing.assert_allclose(ild_at_k(LISTS, VECTORS, k=3), expected, atol=1e-11)


def test_novelty():
    # MeanInvUserFreq has no user who took everything: with one user less, ours has none, either. It counts an
    # item that nobody took as taken by one user.
    expected = [1.214618729925, 1.793607261314, 1.321928094887, 1.793607261314, 2.321928094887]
    counts = np.maximum(COUNTS, 1) - 1
    np.testing.assert_allclose(novelty_at_k(LISTS, counts, k=3, n_users=5 - 1), expected, atol=1e-11)


def test_popularity():
    expected = [2.666666666667, 1.333333333333, 2, 1.333333333333, 1]  # AvgRecPopularity
    np.testing.assert_allclose(popularity_at_k(LISTS, COUNTS, k=3), expected, atol=1e-11)


def test_serendipity():
    expected = [0.166666666667, 0.291666666667, 0.333333333333, 0.166666666667, 0.5]  # Serendipity
    np.testing.assert_allclose(serendipity_at_k(LISTS, RELEVANT, COUNTS, k=3), expected, atol=1e-11)


def test_coverage():
    assert coverage_at_k(LISTS, k=1, n_items=8) == 0.625  # CatalogCoverage(k=1, normalize=True).calc
    assert coverage_at_k(LISTS, k=3, n_items=8) == 1
