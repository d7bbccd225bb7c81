"""Random and basket splits, impressions, and what is filtered before them."""

import numpy as np
import pytest
from real_sets import real
from test_data_splits import make, random_dataset

from lora_rec.data import (
    Impressions,
    Lists,
    join_impressions,
    keep_frequent,
    keep_rated,
    leave_last_basket_out,
    split_impressions,
    split_randomly,
)
from lora_rec.errors import DataError

NOVEMBER_14 = 1573689600


def sizes(split):
    parts = (split.train_log.users, split.validation_log.users)
    counts = [np.bincount(users, minlength=split.n_users) for users in parts]
    test = np.zeros(split.n_users, np.int64)
    test[split.test.users] = split.test.targets.counts
    return np.stack([*counts, test]).T.tolist()


def with_counts(counts):
    users = np.repeat(np.arange(len(counts)), counts)
    items = np.concatenate([np.arange(n) for n in counts])
    return make(users.tolist(), items.tolist(), None, n_users=len(counts), n_items=max(counts))


def test_random_shares_are_cut_per_user():
    # 8:1:1 of 50, 10, 9, 3, 2, 1 and 29; a small user's test comes before the validation.
    expected = [[40, 5, 5], [8, 1, 1], [7, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 0], [25, 2, 2]]
    assert sizes(split_randomly(with_counts([50, 10, 9, 3, 2, 1, 29]))) == expected


def test_a_random_split_is_a_partition_that_the_seed_decides():
    dataset = with_counts([50, 37, 12])
    split = split_randomly(dataset, seed=3)
    for row, user in enumerate(split.test.users):
        history, targets = split.test.histories[row], split.test.targets[row]
        assert sorted([*history, *targets]) == dataset.items[dataset.users == user].tolist()
        assert history.tolist() == sorted(history)  # the data set's order
    assert split.validation.histories[0].tolist() == split.train_histories()[0].tolist()
    again, other = split_randomly(dataset, seed=3), split_randomly(dataset, seed=4)
    assert again.train_log.items.tolist() == split.train_log.items.tolist()
    # The same 40 of 50 by chance: below 1e-10.
    assert other.train_log.items.tolist() != split.train_log.items.tolist()
    assert str(split.report).startswith("split_randomly(shares=(0.8, 0.1, 0.1), seed=3)\n  train: 3 users")


def test_a_random_split_draws_every_place():
    """Each of 10 places is in the test for a tenth of 2,000 users: 200, with a deviation below 14."""
    split = split_randomly(with_counts([10] * 2000))
    counts = np.bincount(split.test.targets.values, minlength=10)
    assert abs(counts - 200).max() < 85  # six deviations


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda d: split_randomly(d, shares=(0.9, 0.2, 0.1)),
            r"shares: \(0\.9, 0\.2, 0\.1\); give three",
        ),
        (lambda d: split_randomly(d, shares=(0.9, 0.1)), r"give three positive shares with sum 1"),
        (lambda d: split_randomly(d, shares=(1.0, 0.0, 0.0)), r"give three positive shares"),
        (
            lambda d: split_randomly(with_counts([1, 1])),
            r"no interaction for validation \(a user has 1 at",
        ),
        (lambda d: leave_last_basket_out(with_counts([5])), r"leave_last_basket_out: the data has no times"),
        (
            lambda d: leave_last_basket_out(make([0, 0], [0, 1], [1, 1])),
            r"no user has two baskets of new",
        ),
        (lambda d: keep_frequent(d, min_interactions=0), r"min_interactions: 0; give at least 1"),
        (lambda d: keep_frequent(d, min_interactions=99), r"nothing is left with min_interactions=99"),
        (lambda d: keep_rated(d, min_rating=3), r"min_rating: the data has no ratings"),
    ],
)
def test_errors(call, message):
    with pytest.raises(DataError, match=message):
        call(random_dataset(0))


def test_baskets_by_hand():
    # User 0: {0, 1}, {1, 2}, {0} (repeats alone: no basket), {3, 3, 0}; user 1: {4}, {5}; user 2: {0, 1}.
    split = leave_last_basket_out(
        make(
            [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2],
            [0, 1, 1, 2, 0, 3, 3, 0, 4, 5, 0, 1],
            [1, 1, 2, 2, 3, 4, 4, 4, 1, 2, 7, 7],
        )
    )
    assert (split.train_log.users.tolist(), split.train_log.items.tolist()) == ([0, 0, 2, 2], [0, 1, 0, 1])
    assert split.validation_log.items.tolist() == [2, 4]
    assert split.validation.users.tolist() == [0]  # user 1 has no history before the validation
    assert split.test.users.tolist() == [0, 1]
    assert [a.tolist() for a in split.test.histories] == [[0, 1, 2], [4]]
    assert [a.tolist() for a in split.test.targets] == [[3], [5]]
    assert split.report.dropped == {
        "interactions that repeat an earlier purchase": 4,
        "users with one basket: training only": 1,
        "validation users without a history": 1,
    }
    assert split.report.tied_test_targets == 0


@pytest.mark.parametrize("seed", range(3))
def test_baskets_agree_with_a_slow_loop(seed):
    """With 40 users, 25 items and 30 moments, most users buy something again and in one basket."""
    dataset = random_dataset(seed)
    split = leave_last_basket_out(dataset)
    assert split.report.tied_test_targets == 0  # baskets have different times
    tested = dict(zip(split.test.users.tolist(), range(len(split.test)), strict=True))
    for user in range(40):
        baskets, seen = {}, set()
        mine = dataset.users == user
        for item, time in zip(dataset.items[mine].tolist(), dataset.times[mine].tolist(), strict=True):
            if item not in seen:
                seen.add(item)
                baskets.setdefault(time, []).append(item)
        *before, last = baskets.values()
        assert (user in tested) == bool(before)
        if before:
            row = tested[user]
            assert split.test.targets[row].tolist() == last
            assert split.test.histories[row].tolist() == [item for basket in before for item in basket]
            assert split.train_histories()[user].tolist() == [i for b in before[:-1] for i in b]


def test_rare_users_and_items_go_in_one_pass():
    # User 2 has one distinct item, so item 3 has one user left: both go; user 1 then has one item, and stays.
    dataset = make([0, 0, 1, 1, 2, 2], [0, 1, 0, 3, 3, 3], [1, 2, 1, 2, 1, 2])
    kept = keep_frequent(dataset, min_interactions=2)
    assert (kept.user_ids.tolist(), kept.item_ids.tolist()) == (["0", "1"], ["0"])
    assert (kept.users.tolist(), kept.items.tolist(), kept.times.tolist()) == ([0, 1], [0, 0], [1, 1])
    assert kept.notes == ("1 users and 3 items with fewer than 2 interactions in the whole log left out",)


def test_low_ratings_go_and_the_catalogue_stays():
    from dataclasses import replace

    dataset = replace(make([0, 0, 1], [0, 1, 2], [1, 2, 1]), ratings=np.array([5.0, 3.0, 2.0]))
    kept = keep_rated(dataset, min_rating=3)
    assert (kept.user_ids.tolist(), kept.items.tolist(), kept.n_items) == (["0"], [0, 1], 3)
    assert kept.ratings.tolist() == [5, 3]
    with pytest.raises(DataError, match=r"no rating reaches 6 \(highest: 5\.0\)"):
        keep_rated(dataset, min_rating=6)


def impressions():
    return Impressions(
        users=np.array([0, 1, 0]),
        times=np.array([86_400, 3 * 86_400, 2 * 86_400]),
        histories=Lists.from_arrays([[0], [], [1, 2]]),
        candidates=Lists.from_arrays([[3, 4], [5], [6, 7, 8]]),
        clicks=np.array([True, False, True, False, False, True]),
    )


def test_impressions_are_taken_whole():
    taken = impressions().take([2, 0])
    assert [a.tolist() for a in taken.candidates] == [[6, 7, 8], [3, 4]]
    assert taken.clicks.tolist() == [False, False, True, True, False]
    assert [a.tolist() for a in taken.histories] == [[1, 2], [0]]
    assert taken.times.tolist() == [2 * 86_400, 86_400]


def test_joined_impressions_are_those_of_the_parts():
    joined = join_impressions([impressions().take([2]), impressions().take([0, 1])])
    again = joined.take([1, 2, 0])
    for name in ("users", "times", "clicks"):
        assert getattr(again, name).tolist() == getattr(impressions(), name).tolist()
    for name in ("histories", "candidates"):
        expected = [array.tolist() for array in getattr(impressions(), name)]
        assert [array.tolist() for array in getattr(again, name)] == expected


def test_impressions_are_split_at_moments():
    split = split_impressions(impressions(), test_from=3 * 86_400)
    assert [part.times.tolist() for part in (split.train, split.validation, split.test)] == [
        [86_400],
        [2 * 86_400],
        [3 * 86_400],
    ]
    with pytest.raises(DataError, match="no impression for test with validation_from=259200 and"):
        split_impressions(impressions(), test_from=4 * 86_400)


def test_impressions_check_themselves():
    lists = Lists.from_arrays([[0]])
    with pytest.raises(DataError, match=r"impressions\.times: 2 for 1 impressions"):
        Impressions(np.array([0]), np.array([1, 2]), lists, lists, np.array([True]))
    with pytest.raises(DataError, match=r"impressions\.clicks: 1 of type int64 for 1 candidates"):
        Impressions(np.array([0]), np.array([1]), lists, lists, np.array([1]))


def test_the_published_counts_of_online_retail():
    dataset = keep_frequent(real("online-retail").dataset, min_interactions=5)
    assert (dataset.n_users, dataset.n_items) == (4081, 3249)
    split = leave_last_basket_out(dataset)
    assert len(split.test) == 2731
    # Popularity before the test: the published ndcg@10 is .0330.
    counts = split.item_counts(include_validation=True)
    found = []
    for history, targets in zip(split.test.histories, split.test.targets, strict=True):
        scores = counts.astype(float)
        scores[history] = -1
        hits = np.isin(np.argsort(-scores, kind="stable")[:10], targets)
        gains = 1 / np.log2(np.arange(2, 12))
        found.append(gains[hits].sum() / gains[: len(targets)].sum())
    assert round(float(np.mean(found)), 4) == 0.0330


def test_the_published_counts_of_mind():
    split = split_impressions(real("mind").impressions, test_from=NOVEMBER_14)
    assert (len(split.train) + len(split.validation), len(split.test)) == (4032, 968)


def test_the_random_split_of_lastfm():
    split = split_randomly(real("lastfm").dataset)
    kept = {part: counts["interactions"] for part, counts in split.report.kept.items()}
    assert sum(kept.values()) == 92_834
    assert kept["test"] == pytest.approx(9283, abs=30)  # users of fewer than 10 still give one
