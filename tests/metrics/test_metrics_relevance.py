import importlib.util
import json
import os
import subprocess
import sys
from math import log2

import numpy as np
import pytest

from lora_rec.metrics import hit_rate_at_k, mrr_at_k, ndcg_at_k, pad_lists, recall_at_k

METRICS = [recall_at_k, ndcg_at_k, mrr_at_k, hit_rate_at_k]
# User 0 hits at ranks 1 and 3, user 1 at rank 2, user 2 never, user 3 has a short list.
RECOMMENDED = np.array([[4, 2, 7, 9], [1, 3, 5, 8], [0, 1, 2, 3], [6, -1, -1, -1]])
RELEVANT = [[7, 4], [3, 10, 11, 12, 13], [9], [6, 5]]


@pytest.mark.parametrize(
    ("metric", "k", "expected"),
    [
        (recall_at_k, 3, [2 / 2, 1 / 5, 0, 1 / 2]),
        (recall_at_k, 1, [1 / 2, 0, 0, 1 / 2]),
        (
            ndcg_at_k,
            3,
            [
                (1 + 1 / log2(4)) / (1 + 1 / log2(3)),
                (1 / log2(3)) / (1 + 1 / log2(3) + 1 / log2(4)),  # five are relevant, three fit
                0,
                1 / (1 + 1 / log2(3)),
            ],
        ),
        (ndcg_at_k, 1, [1, 0, 0, 1]),
        (mrr_at_k, 3, [1, 1 / 2, 0, 1]),
        (mrr_at_k, 1, [1, 0, 0, 1]),
        (hit_rate_at_k, 3, [1, 1, 0, 1]),
        (hit_rate_at_k, 1, [1, 0, 0, 1]),
    ],
)
def test_values_by_hand(metric, k, expected):
    values = metric(RECOMMENDED, RELEVANT, k=k)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_user_without_relevant_items_is_nan_and_an_empty_list_is_zero(metric):
    values = metric(np.array([[1, 2], [-1, -1], [3, -1]]), [[], [1], np.array([])], k=2)
    np.testing.assert_array_equal(values, [np.nan, 0, np.nan])


@pytest.mark.parametrize("metric", METRICS)
def test_no_users(metric):
    assert metric(np.empty((0, 3), dtype=int), [], k=2).shape == (0,)


@pytest.mark.parametrize("metric", METRICS)
def test_a_relevant_item_given_twice_counts_once(metric):
    np.testing.assert_array_equal(
        metric(RECOMMENDED[:1], [[7, 7, 2]], k=3), metric(RECOMMENDED[:1], [[2, 7]], k=3)
    )


@pytest.mark.parametrize("metric", METRICS)
def test_items_of_another_user_are_no_hits(metric):
    # An empty slot of user 1 must not meet the last item of user 0 when pairs are numbered.
    np.testing.assert_array_equal(metric(np.array([[0, 1], [2, -1]]), [[2, 1], [1]], k=2)[1], 0)


@pytest.mark.parametrize("metric", METRICS)
def test_refuses(metric):
    lists = np.array([[1, 2]])
    with pytest.raises(ValueError, match=r"k: 3 is not within 1\.\.2"):
        metric(lists, [[1]], k=3)
    with pytest.raises(ValueError, match=r"k: 0 is not within 1\.\.2"):
        metric(lists, [[1]], k=0)
    with pytest.raises(ValueError, match="recommended: list 0 has an item twice"):
        metric(np.array([[1, 1]]), [[1]], k=1)
    with pytest.raises(ValueError, match="relevant: 2 users, but recommended has 1"):
        metric(lists, [[1], [2]], k=1)
    with pytest.raises(ValueError, match="relevant: -1 is below 0"):
        metric(lists, [[1, -1]], k=1)
    with pytest.raises(ValueError, match="relevant: items are float64, not integers"):
        metric(lists, [[1.5]], k=1)
    with pytest.raises(ValueError, match="is too large; number the items from 0"):
        metric(np.array([[1], [2]]), [[2**62], [1]], k=1)


# ranx compiles for 25 s; without numba's compiler, which is switched off before the import, it takes one.
RANX = """
import json, sys
import ranx

lists, relevant, names = json.load(sys.stdin)
run = {f"u{u}": {f"i{i}": 1 / (n + 1) for n, i in enumerate(items)} for u, items in enumerate(lists)}
qrels = {f"u{u}": {f"i{i}": 1 for i in items} for u, items in enumerate(relevant)}
run = ranx.Run(run)
ranx.evaluate(ranx.Qrels(qrels), run, names)
print(json.dumps({name: [run.scores[name][f"u{u}"] for u in range(len(lists))] for name in names}))
"""


def test_equal_to_ranx():
    if importlib.util.find_spec("ranx") is None:
        pytest.skip("ranx is not installed")
    rng = np.random.default_rng(0)
    n_users, n_items = 200, 40  # few items, so that there are hits at every rank; lists of 1 to 12
    lists = [rng.permutation(n_items)[: rng.integers(1, 13)].tolist() for _ in range(n_users)]
    relevant = [rng.permutation(n_items)[: rng.integers(1, 20)].tolist() for _ in range(n_users)]
    names = [f"{metric.__name__.removesuffix('_at_k')}@{k}" for metric in METRICS for k in (1, 5, 10)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RANX],
        input=json.dumps([lists, relevant, names]),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])
    for metric in METRICS:
        for k in (1, 5, 10):
            ours = metric(pad_lists(lists, k=k), relevant, k=k)
            assert 0 < ours.mean() < 1
            name = f"{metric.__name__.removesuffix('_at_k')}@{k}"
            np.testing.assert_allclose(ours, theirs[name], rtol=0, atol=1e-9)
