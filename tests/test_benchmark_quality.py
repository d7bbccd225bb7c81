"""The parts of benchmarks/quality.py that decide what its figures mean, on made-up data."""

import sys
from pathlib import Path

import numpy as np
import pytest

from lora_rec.data import Dataset, EvaluationSet, Impressions, Lists, leave_last_basket_out, leave_last_out

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import quality_judge as judge
import quality_ours as ours
import quality_peers as peers
import quality_sets as sets
from peers.sessions import cut_into_sessions, session_length
from quality_search import climb, keep_scores

N_ITEMS = 40


def make(users, items, times):
    names = {"user_ids": np.array([f"u{n}" for n in range(max(users) + 1)])}
    return Dataset(
        **names,
        item_ids=np.array([f"i{n}" for n in range(N_ITEMS)]),
        item_fields={"title": tuple(f"item {n}" for n in range(N_ITEMS))},
        users=np.array(users),
        items=np.array(items),
        times=np.array(times),
    )


def prepare(split=leave_last_out):
    """30 users with 12 distinct items each, in baskets of two."""
    rng = np.random.default_rng(0)
    items = [item for _ in range(30) for item in rng.permutation(N_ITEMS)[:12]]
    dataset = make(np.repeat(np.arange(30), 12).tolist(), items, np.tile(np.arange(12) // 2, 30).tolist())
    vectors = rng.standard_normal((N_ITEMS, 8)).astype(np.float32)
    return sets.ranking_set("made-up", dataset, split(dataset), ("",) * N_ITEMS, vectors, ordered=True)


def test_nothing_that_a_system_sees_holds_a_withheld_item():
    plain = prepare()
    cold = sets.withhold_items(plain, share=0.25)
    for_test, for_validation = cold.test.withheld, cold.validation.withheld
    assert len(for_test) == len(for_validation) == 10
    assert not set(for_test) & set(for_validation)
    for part, hidden in ((cold.validation, {*for_test, *for_validation}), (cold.test, {*for_test})):
        assert len(part.evaluation) > 0
        assert not hidden & {*part.fit.values, *part.evaluation.histories.values}
        assert len(part.ages) == len(part.evaluation.histories.values)
        assert (part.ages[part.evaluation.histories.offsets[1:] - 1] >= 0).all()
    split = cold.split
    seen = {*split.refit_log.items, *split.validation.histories.values, *split.validation.targets.values}
    assert not {*for_test} & seen
    assert set(cold.validation.evaluation.targets.values) <= set(for_validation)
    # Targets of the test are of both kinds.
    assert set(cold.test.evaluation.targets.values) & set(for_test)
    assert set(cold.test.evaluation.targets.values) - set(for_test)
    # What was withheld for validation alone is learned from in the refit.
    assert {*for_validation} & {*cold.test.fit.values}
    # A target is the protocol's own, so nothing in a history lies after it.
    targets = dict(zip(plain.test.evaluation.users, plain.test.evaluation.targets, strict=True))
    for user, mine in zip(cold.test.evaluation.users, cold.test.evaluation.targets, strict=True):
        assert set(mine) <= set(targets[user])


def test_what_withheld_items_could_tell_is_measured_on_cold_sets_alone(tmp_path):
    known, plain = ours.our_systems(tmp_path)["lora_rec_linear_known"], prepare()
    assert "withheld" in known.fits(plain)
    cold = sets.withhold_items(plain, share=0.25)
    assert known.fits(cold) == "" and set(cold.test.withheld) & set(cold.whole.items)
    lists, withheld = known.run(cold, 0, 1).results, {*cold.test.withheld}
    assert set(lists["withheld"].ravel()) <= withheld | {-1}
    assert set(lists["all"].ravel()) & withheld


def test_the_latest_items_are_withheld_by_date():
    plain = prepare()
    cold = sets.withhold_items(plain, share=0.1, by_date=True)
    first = np.full(N_ITEMS, 99)
    np.minimum.at(first, plain.dataset.items, plain.dataset.times)
    withheld, before = cold.test.withheld, cold.validation.withheld
    others = np.setdiff1d(np.arange(N_ITEMS), [*withheld, *before])
    assert first[withheld].min() >= first[before].max() >= first[before].min() >= first[others].max()
    assert not set(withheld) & {*cold.split.refit_log.items}


def test_drawn_users_keep_their_own():
    part = prepare().validation
    drawn = sets.sample_users(part, n_users=7)
    assert len(drawn.evaluation) == 7
    assert sets.sample_users(part, n_users=30) is part
    for row, user in enumerate(drawn.evaluation.users):
        assert drawn.evaluation.histories[row].tolist() == part.evaluation.histories[int(user)].tolist()
        assert drawn.evaluation.targets[row].tolist() == part.evaluation.targets[int(user)].tolist()
    assert drawn.ages.tolist() == list(range(9, -1, -1)) * 7


def test_ages_count_items_or_baskets():
    assert prepare().test.ages[:11].tolist() == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    by_basket = prepare(leave_last_basket_out)
    assert by_basket.test.ages[:10].tolist() == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]
    assert by_basket.validation.ages[:8].tolist() == [3, 3, 2, 2, 1, 1, 0, 0]


def test_lists_leave_out_the_history_and_rank_the_withheld_alone():
    cold = sets.withhold_items(prepare(), share=0.25)
    descending = -np.arange(N_ITEMS, dtype=np.float32)
    lists = judge.lists_of(
        cold.test, lambda start, stop: np.tile(descending, (stop - start, 1)), n_items=N_ITEMS
    )
    for row, history in enumerate(cold.test.evaluation.histories):
        rest = [item for item in range(N_ITEMS) if item not in set(history)]
        assert lists["all"][row].tolist() == rest[: judge.K]
        assert lists["withheld"][row].tolist() == cold.test.withheld.tolist()[: judge.K]


def test_equal_scores_do_not_favour_low_ids():
    prepared = prepare()
    flat = judge.lists_of(prepared.test, lambda a, b: np.zeros((b - a, N_ITEMS), np.float32), n_items=N_ITEMS)
    # Ids in order would have a mean near 6; of a random order it is 19.5 with a deviation of about 3.
    assert 10 < flat["all"].mean() < 30


def test_scores_that_are_not_finite_are_refused():
    part = prepare().test
    with pytest.raises(ValueError, match="not finite"):
        judge.lists_of(part, lambda a, b: np.full((b - a, N_ITEMS), np.nan, np.float32), n_items=N_ITEMS)


def shown(clicks, candidates):
    lists = Lists.from_arrays(candidates)
    n = len(candidates)
    none = Lists.from_arrays([[]] * n)
    return Impressions(np.arange(n), np.arange(n), none, lists, np.array(clicks, bool))


def test_impressions_by_hand():
    found = judge.impression_values(
        shown([1, 0, 0, 1, 1, 0, 0], [[0, 1, 2], [3, 4], [5, 6]]), np.array([2.0, 3, 1, 5, 5, 0, 0])
    )
    # One of two pairs is right; the second has clicks alone, the third none.
    assert found["auc"][0] == 0.5
    assert found["ndcg@10"][0] == 1 / np.log2(3)
    assert np.isnan(found["auc"][1:]).all()
    assert judge.impression_values(shown([1, 0], [[0, 1]]), np.zeros(2))["auc"].tolist() == [0.5]


def test_click_rates_shrink_to_the_rate_of_all():
    rates = peers.click_rates([shown([1, 0, 0, 1], [[0, 1], [1, 0]])], n_items=3, prior=2)
    assert rates.tolist() == [(2 + 2 * 0.5) / (2 + 2), (0 + 2 * 0.5) / (2 + 2), 0.5]


def test_both_ways_to_ease_give_one_order(monkeypatch):
    part = prepare().test
    decomposed = peers._ease_scorer(part, N_ITEMS, regularisation=5.0, decay=0.8)(0, 30)
    monkeypatch.setattr(peers, "_EXACT_USERS", 0)
    inverted = peers._ease_scorer(part, N_ITEMS, regularisation=5.0, decay=0.8)(0, 30)
    for row, history in enumerate(part.evaluation.histories):
        rest = np.setdiff1d(np.arange(N_ITEMS), history)  # of the history, the first way gives something else
        np.testing.assert_allclose(decomposed[row, rest], inverted[row, rest], atol=1e-4)


def test_whitened_vectors_weigh_directions_alike():
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((500, 3)) * [9, 3, 1] + 5).astype(np.float32)
    white = peers.whiten(vectors, np.ones(500, bool), dimensions=3)
    assert np.allclose(np.linalg.norm(white, axis=1), 1, atol=1e-5)
    shares = (white**2).mean(axis=0)  # a third each, with a deviation of about .01
    assert np.abs(shares - 1 / 3).max() < 0.06


def test_a_climb_spends_its_trials_and_no_more():
    calls = []

    def evaluate(settings):
        calls.append((settings["x"], settings["y"]))
        return -abs(settings["x"] - 7) - abs(settings["y"] - 2)

    axes = {"x": range(10), "y": range(10)}
    found = climb(evaluate, axes, {"x": 3, "y": 4}, trials=30)
    assert found.settings == {"x": 7, "y": 2}
    assert len(calls) == len(set(calls)) == found.trials <= 30
    calls.clear()
    assert climb(evaluate, axes, {"x": 0, "y": 9}, trials=4).trials == len(calls) == 4


def test_a_climb_leaves_a_ridge_by_a_diagonal_step():
    found = climb(lambda s: s["x"] + s["y"] - 3 * abs(s["x"] - s["y"]), {"x": range(4), "y": range(4)},
                  {"x": 0, "y": 0}, trials=20)  # fmt: skip
    assert found.settings == {"x": 3, "y": 3}
    assert climb(lambda s: 1.0, {}, {}, trials=12).trials == 1


def test_a_choice_that_was_stopped_goes_on_behind_its_trials(tmp_path):
    calls = []

    def evaluate(settings):
        calls.append(settings["x"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return float(settings["x"])

    def choose(given):
        look = keep_scores(evaluate, tmp_path / "trials.json", given=given)
        return climb(look, {"x": [0, 1, 2, 3]}, {"x": 0}, trials=12)

    with pytest.raises(KeyboardInterrupt):
        choose({"seed": 0})
    assert choose({"seed": 0}).settings == {"x": 3}
    assert calls == [0, 1, 2, 2, 3]
    choose({"seed": 1})  # another's are not read
    assert calls[5:] == [0, 1, 2, 3]


def test_a_small_grid_is_tried_whole():
    """The best lies behind a valley."""
    found = climb(lambda s: [3, 1, 0, 0, 9][s["x"]], {"x": range(5)}, {"x": 0}, trials=12)
    assert (found.settings, found.trials) == ({"x": 4}, 5)


def test_few_users_of_a_cold_set_are_asked_in_several_parts(monkeypatch):
    cold = sets.withhold_items(prepare(), share=0.1)
    assert len(cold.validations) == 5
    every = [item for part in (cold.test, *cold.validations) for item in part.withheld]
    assert len(set(every)) == len(every) == 6 * 4
    for part in cold.validations:
        assert not {*part.withheld, *cold.test.withheld} & {*part.fit.values}
    seen = []

    def build(part, settings):
        seen.append(tuple(part.withheld))
        return lambda start, stop: np.zeros((stop - start, N_ITEMS), "f4")

    judge.choose_and_rank(cold, build, {}, {}, 12)
    assert seen == [tuple(part.withheld) for part in (*cold.validations, cold.test)]
    monkeypatch.setattr(sets, "ENOUGH_USERS", 1)
    assert len(sets.withhold_items(prepare(), share=0.1).validations) == 1


def test_sessions_hold_every_item_but_the_first_as_a_target_once():
    counts = np.array([0, 1, 7, 12, 3])
    users = np.repeat(np.arange(5), counts)
    rows, sessions = cut_into_sessions(users, length=3)
    followed = [(sessions[n], rows[n]) for n in range(1, len(rows)) if sessions[n] == sessions[n - 1]]
    targets = sorted(row for _, row in followed)
    first = np.flatnonzero(np.diff(users, prepend=-1))
    assert targets == sorted(set(range(len(users))) - set(first))
    assert np.bincount(sessions).max() == 4
    assert all(len(set(users[rows[sessions == one]])) == 1 for one in set(sessions))


@pytest.mark.parametrize(
    ("counts", "length"), [([5] * 95 + [100] * 5, 20), ([5] * 94 + [100] * 6, 50), ([400], 50)]
)
def test_sessions_are_as_long_as_nearly_every_history_needs(counts, length):
    assert session_length(np.array(counts)) == length


def test_plays_weigh_in_ease_where_they_are_known():
    plain = prepare()
    strengths = np.random.default_rng(0).integers(1, 50, len(plain.test.fit.values)).astype("f4")
    fit = Lists(plain.test.fit.values, plain.test.fit.offsets, strengths)
    part = sets.Part(fit, plain.test.evaluation, plain.test.ages, None)
    scorers = [peers._ease_scorer(part, N_ITEMS, regularisation=5.0, decay=1.0, plays=p) for p in (0.0, 1.0)]
    one, other = (scorer(0, 30) for scorer in scorers)
    assert np.abs(one - other).max() > 1e-2


def test_a_user_without_targets_among_the_withheld_is_left_out():
    plain = prepare()
    users = EvaluationSet(np.array([0]), Lists.from_arrays([[1]]), Lists.from_arrays([[2]]))
    part = sets.Part(plain.test.fit, users, np.array([0]), None)
    known = np.ones(N_ITEMS, bool)
    assert len(sets._withhold(part, known, np.array([5])).evaluation) == 0
