from itertools import product
from math import sqrt

import numpy as np
import pytest

from lora_rec.metrics import (
    bootstrap_interval,
    holm_adjusted,
    mean_over_users,
    paired_difference,
    sign_flip_test,
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


def test_a_user_with_several_values_is_drawn_with_all_of_them():
    generator = np.random.default_rng(0)
    users, values = np.tile(np.arange(200), 4), np.tile(generator.random(200), 4)
    low, high = bootstrap_interval(values, users=users)
    assert (low, high) == pytest.approx(bootstrap_interval(values[:200]))
    assert high - low == pytest.approx(2 * 1.96 * values[:200].std() / np.sqrt(200), rel=0.1)
    named = [f"user {user}" for user in users]
    assert bootstrap_interval([*values, np.nan], users=[*named, "who has none"]) == pytest.approx(
        bootstrap_interval(values, users=named)
    )


def test_bootstrap_interval_refuses():
    with pytest.raises(ValueError, match=r"users: shape \(1,\), values \(2,\); give one user per value"):
        bootstrap_interval([1.0, 2.0], users=["ann"])
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


def test_sign_flip_test_is_the_share_of_all_signs_that_reach_as_far():
    # Ten users have 1024 signs, so that all can be tried. The standard error of a p-value near 0.2 from
    # 100,000 draws is 0.0013; the tolerance is four of them, and the seed is fixed.
    a, b = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3]), np.array([2, 3, 1, 2, 4, 0, 5, 3, 1, 2])
    sums = np.array(list(product([-1, 1], repeat=10))) @ (a - b)
    share = np.mean(np.abs(sums) >= abs((a - b).sum()))
    assert 0.1 < share < 0.3
    assert sign_flip_test(a, b, n_resamples=100_000) == pytest.approx(share, abs=0.005)
    assert sign_flip_test(b, a, n_resamples=100_000) == pytest.approx(share, abs=0.005)


def test_sign_flip_test_holds_its_level_without_a_difference():
    # 400 pairs of systems that do not differ: the number of p-values up to 0.1 is binomial, with a mean of 40
    # and a standard deviation of 6; within five of them.
    rng = np.random.default_rng(0)
    p_values = [sign_flip_test(*rng.random((2, 30)), n_resamples=199) for _ in range(400)]
    assert 40 - 30 < np.sum(np.array(p_values) <= 0.1) < 40 + 30


def test_sign_flip_test_ends_and_repeats(monkeypatch):
    a = np.linspace(0, 1, 50)
    assert sign_flip_test(a, a) == 1
    assert sign_flip_test(a + 1, a, n_resamples=999) == 1 / 1000
    b = np.roll(a, 25)
    whole = sign_flip_test(a, b**2, seed=3, n_resamples=500)
    assert whole != sign_flip_test(a, b**2, seed=4, n_resamples=500)
    assert whole == sign_flip_test([np.nan, 2, *a], [1, np.nan, *b**2], seed=3, n_resamples=500)
    # Fractions that are equal but for rounding reach as far: 0.1 + 0.2 - 0.3 is not 0.
    assert sign_flip_test([0.1, 0.2, 0, 0], [0, 0, 0.3, 0]) == 1
    monkeypatch.setattr("lora_rec.metrics.significance._SIGNS_PER_STEP", 7 * 56)  # several steps and a rest
    assert sign_flip_test(a + 1, a, n_resamples=999) == 1 / 1000


def test_sign_flip_test_refuses():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(1,\) differ"):
        sign_flip_test([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="a - b: none of 1 users has a value"):
        sign_flip_test([np.nan], [1.0])
    with pytest.raises(ValueError, match="n_resamples: 0 is below 1"):
        sign_flip_test([1.0], [0.0], n_resamples=0)


def test_holm_by_hand():
    # The smallest times four, the next times three, never below the one before, never above 1.
    adjusted = holm_adjusted([0.02, 0.01, 0.9, 0.015])
    np.testing.assert_allclose(adjusted, [3 * 0.015, 4 * 0.01, 0.9, 3 * 0.015])
    assert holm_adjusted([0.6, 0.7]).tolist() == [1, 1]
    assert holm_adjusted([]).tolist() == []


@pytest.mark.parametrize("bad", [[0.5, 1.5], [-0.1], [np.nan], 0.5])
def test_holm_refuses(bad):
    with pytest.raises(ValueError, match=r"p_values: .* within \[0, 1\]; give one per comparison"):
        holm_adjusted(bad)
