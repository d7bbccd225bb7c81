import numpy as np
import pytest

from lora_rec.data.dataset import Log
from lora_rec.rank.recent import RecentCounts

DAY = 86_400


def test_counts_are_the_faded_sum_of_what_lies_before_each_moment():
    rng = np.random.default_rng(0)
    users, items, times = np.arange(200), rng.integers(0, 7, 200), rng.integers(0, 30 * DAY, 200)
    counts = RecentCounts.from_log(Log(users, items, times), n_items=7)
    moments = rng.integers(0, 40 * DAY, 25)
    moments[:2] = times[:2]  # what happens at the moment itself is not before it
    expected = np.zeros((25, 7))
    for row, moment in enumerate(moments):
        for item, time in zip(items, times, strict=True):
            if time < moment:
                expected[row, item] += 0.5 ** ((moment - time) / (3 * DAY))
    np.testing.assert_allclose(counts.at(moments, half_life=3.0), expected, rtol=1e-5, atol=1e-6)


def test_now_is_after_the_last_interaction():
    counts = RecentCounts.from_log(Log(np.arange(2), np.array([1, 0]), np.array([5, 3])), n_items=3)
    assert counts.now(half_life=1.0).round(3).tolist() == [1.0, 1.0, 0.0]


def test_a_date_in_the_future_is_not_now():
    counts = RecentCounts(np.array([1, 0, 2]), np.array([3, 5, 900 * DAY]), n_items=3)
    assert counts.now(half_life=1.0, latest=DAY).round(3).tolist() == [1.0, 1.0, 0.0]
    assert counts.now(half_life=1.0, latest=2).tolist() == counts.now(half_life=1.0).tolist()


@pytest.mark.parametrize("times", [None, np.empty(0, np.int64)])
def test_a_log_without_times_has_no_recent_counts(times):
    size = 0 if times is not None else 2
    log = Log(np.arange(size), np.arange(size), times)
    assert RecentCounts.from_log(log, n_items=2) is None
