import numpy as np
import pytest

from lora_rec.data import Dataset, leave_last_out, split_at_quantiles, split_at_time
from lora_rec.data.examples import draw_examples
from lora_rec.data.lists import Lists
from lora_rec.errors import DataError


def make(users, items, times, *, n_users=None, n_items=None):
    return Dataset(
        user_ids=np.array([str(i) for i in range(n_users or max(users) + 1)]),
        item_ids=np.array([str(i) for i in range(n_items or max(items) + 1)]),
        item_fields={},
        users=np.array(users),
        items=np.array(items),
        times=None if times is None else np.array(times),
    )


def random_dataset(seed):
    """400 interactions: 40 users, 25 items (so that items repeat), 30 moments (so that times tie)."""
    rng = np.random.default_rng(seed)
    users = np.sort(rng.integers(0, 40, 400))
    items, times = rng.integers(0, 25, 400), rng.integers(100, 130, 400)
    order = np.lexsort((times, users))
    return make(users[order], items[order], times[order], n_users=40, n_items=25)


def rows_of(dataset, user):
    mine = dataset.users == user
    return dataset.items[mine].tolist(), dataset.times[mine].tolist()


def test_leave_last_out_by_hand():
    split = leave_last_out(make([0, 0, 0, 0, 1, 1], [3, 1, 0, 2, 3, 1], [1, 2, 3, 4, 1, 2]))
    assert (split.train_log.users.tolist(), split.train_log.items.tolist()) == ([0, 0, 1, 1], [3, 1, 3, 1])
    assert split.train_log.times.tolist() == [1, 2, 1, 2]
    assert split.validation.users.tolist() == split.test.users.tolist() == [0]
    assert split.validation.histories[0].tolist() == [3, 1]
    assert split.validation.targets[0].tolist() == [0]
    assert split.test.histories[0].tolist() == [3, 1, 0]
    assert split.test.targets[0].tolist() == [2]
    assert [a.tolist() for a in split.train_histories()] == [[3, 1], [3, 1]]
    assert [a.tolist() for a in split.refit_histories()] == [[3, 1, 0], [3, 1]]
    assert split.item_counts().tolist() == [0, 2, 0, 2]
    assert split.item_counts(include_validation=True).tolist() == [1, 2, 0, 2]
    assert split.report.dropped == {"users with fewer than 3 interactions: training only": 1}
    assert split.report.unseen_test_targets == 1
    assert str(split.report).splitlines() == [
        "leave_last_out(min_interactions=3)",
        "  train: 2 users, 2 items, 4 interactions",
        "  validation: 1 users, 1 items, 1 interactions",
        "  test: 1 users, 1 items, 1 interactions",
        "  left out: 1 users with fewer than 3 interactions: training only",
        "  1 test targets have no interaction in training",
    ]


def test_a_target_in_the_history_is_left_out_and_still_held_out():
    split = leave_last_out(make([0, 0, 0, 1, 1, 1], [0, 1, 0, 2, 1, 0], [1, 2, 3, 1, 2, 3]))
    assert split.test.users.tolist() == [1]
    assert split.validation.users.tolist() == [0, 1]
    assert split.report.dropped == {
        "test targets that are already in the history": 1,
        "test users without a target left": 1,
    }
    assert split.train_log.items.tolist() == [0, 2]


def test_ties_between_the_last_two_are_counted():
    split = leave_last_out(make([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2], [1, 3, 3, 1, 2, 3]))
    assert split.report.tied_test_targets == 1
    assert split.test.targets.values.tolist() == [2, 2]
    assert "1 test targets are tied in time with the item before" in str(split.report)


def test_without_times_the_caller_vouches_for_the_order():
    dataset = make([0, 0, 0], [0, 1, 2], None)
    with pytest.raises(
        DataError, match=r"leave_last_out: the data has no times; name a time_column, or pass"
    ):
        leave_last_out(dataset)
    split = leave_last_out(dataset, ordered=True)
    assert (split.test.targets[0].tolist(), split.train_log.times) == ([2], None)
    with pytest.raises(DataError, match=r"split_at_time: the data has no times; name a time_column, or use"):
        split_at_time(dataset, validation_from=1, test_from=2)


@pytest.mark.parametrize("seed", range(5))
def test_leave_last_out_leaks_nothing(seed):
    """Compares with a slow loop: with 40 users, repeats and ties, a shift by one item fails for some user."""
    dataset = random_dataset(seed)
    split = leave_last_out(dataset, min_interactions=4)
    train, evaluated = split.train_histories(), {"validation": 0, "test": 0}
    for user in range(40):
        items, _ = rows_of(dataset, user)
        cut = len(items) - 2 if len(items) >= 4 else len(items)
        assert train[user].tolist() == items[:cut]
        for name, at in (("validation", cut), ("test", cut + 1)):
            part = getattr(split, name)
            valid = cut < len(items) and items[at] not in items[:at]
            assert (user in part.users) == valid
            if valid:
                row = int(np.flatnonzero(part.users == user)[0])
                assert part.histories[row].tolist() == items[:at]
                assert part.targets[row].tolist() == [items[at]]
                evaluated[name] += 1
    assert min(evaluated.values()) > 5  # else nothing was compared
    assert max(evaluated.values()) < 40  # else no target was left out


@pytest.mark.parametrize("seed", range(5))
def test_a_time_split_leaks_nothing(seed):
    """Compares with a slow loop: interactions lie on both moments, so `<=` in the place of `<` fails."""
    dataset = random_dataset(seed)
    assert (dataset.times == 115).sum() > 2 and (dataset.times == 122).sum() > 2
    split = split_at_time(dataset, validation_from=115, test_from=122)
    assert split.train_log.times.max() < 115
    assert (
        split.item_counts().tolist() == np.bincount(dataset.items[dataset.times < 115], minlength=25).tolist()
    )
    before_test = np.bincount(dataset.items[dataset.times < 122], minlength=25)
    assert split.item_counts(include_validation=True).tolist() == before_test.tolist()
    train, refit, n_left_out = split.train_histories(), split.refit_histories(), 0
    for user in range(40):
        items, times = rows_of(dataset, user)
        assert train[user].tolist() == [i for i, t in zip(items, times, strict=True) if t < 115]
        assert refit[user].tolist() == [i for i, t in zip(items, times, strict=True) if t < 122]
        for name, start, end in (("validation", 115, 122), ("test", 122, 10**9)):
            part = getattr(split, name)
            history = [i for i, t in zip(items, times, strict=True) if t < start]
            later = [i for i, t in zip(items, times, strict=True) if start <= t < end]
            targets = list(dict.fromkeys(i for i in later if i not in history))
            n_left_out += len(later) - len(targets)
            assert (user in part.users) == bool(history and targets)
            if history and targets:
                row = int(np.flatnonzero(part.users == user)[0])
                assert part.histories[row].tolist() == history
                assert part.targets[row].tolist() == targets
    assert n_left_out > 0  # else no target was left out
    assert len(split.validation) > 5 and len(split.test) > 5


@pytest.mark.parametrize("seed", range(3))
def test_the_future_changes_nothing_before_it(seed):
    """Rewrites every item from the test on: 25 items and about 100 rows, so that some of them do change."""
    dataset = random_dataset(seed)
    later = dataset.times >= 122
    items = np.where(later, (dataset.items + 1) % 25, dataset.items)
    other = make(dataset.users, items, dataset.times, n_users=40, n_items=25)
    assert (items != dataset.items).any()
    one, two = (split_at_time(d, validation_from=115, test_from=122) for d in (dataset, other))
    assert one.train_log.items.tolist() == two.train_log.items.tolist()
    assert one.validation_log.items.tolist() == two.validation_log.items.tolist()
    assert one.validation.targets.values.tolist() == two.validation.targets.values.tolist()
    assert (
        one.item_counts(include_validation=True).tolist() == two.item_counts(include_validation=True).tolist()
    )


def test_a_time_split_says_whom_it_leaves_out():
    split = split_at_time(
        make([0, 0, 0, 0, 1, 2, 2], [0, 1, 1, 2, 0, 0, 0], [1, 5, 6, 9, 5, 1, 9]),
        validation_from=5,
        test_from=9,
    )
    assert split.validation.targets[0].tolist() == [1]
    assert split.report.dropped == {
        "validation users without a history": 1,
        "validation targets that repeat another": 1,
        "test targets that are already in the history": 1,
        "test users without a target left": 1,
    }
    assert split.report.kept["test"] == {"users": 1, "items": 1, "interactions": 1}


def test_quantiles_are_moments():
    dataset = make([0] * 10, range(10), range(100, 110))
    split = split_at_quantiles(dataset, validation=0.5, test=0.8)
    assert split.report.name == "split_at_time(validation_from=105, test_from=108)"
    assert split.train_log.items.tolist() == [0, 1, 2, 3, 4]
    assert split.test.targets[0].tolist() == [8, 9]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda d: leave_last_out(d, min_interactions=2),
            r"leave_last_out.min_interactions: 2; give at least 3",
        ),
        (lambda d: leave_last_out(d, min_interactions=9), r"no user has 9 interactions \(most: 4\); lower"),
        (lambda d: split_at_time(d, validation_from=3, test_from=3), r"3 is not before test_from 3; give an"),
        (
            lambda d: split_at_time(d, validation_from=0, test_from=3),
            r"split_at_time: no interaction for training with validation_from=0 and test_from=3 "
            r"\(times: 1 to 4\); choose other moments",
        ),
        (
            lambda d: split_at_time(d, validation_from=2, test_from=9),
            r"split_at_time: no interaction for test",
        ),
        (lambda d: split_at_quantiles(d, validation=0.9, test=0.8), r"give 0 < validation < test < 1"),
        (
            lambda d: split_at_quantiles(d, validation=0.8, test=0.9),
            r"many interactions have the time 4; choose",
        ),
    ],
)
def test_splits_that_cannot_be_made(call, message):
    with pytest.raises(DataError, match=message):
        call(make([0, 0, 0, 0], [0, 1, 2, 3], [1, 2, 3, 4]))


def test_an_evaluation_set_knows_when_each_list_was_wanted():
    users, items, times = [0] * 4 + [1] * 5, [0, 1, 2, 3, 3, 1, 2, 0, 4], [1, 2, 30, 40, 5, 6, 70, 80, 90]
    split = leave_last_out(make(users, items, times))
    assert split.validation.times.tolist() == [30, 80]
    assert split.test.times.tolist() == [40, 90]
    at_time = split_at_time(make(users, items, times), validation_from=30, test_from=75)
    assert at_time.validation.times.tolist() == [30, 70]
    assert at_time.validation.take(np.array([1])).times.tolist() == [70]


def test_a_user_counts_once_for_an_item_that_was_taken_again():
    taken = make([0, 0, 0, 0, 0, 1, 1], [2, 2, 2, 0, 1, 2, 0], [1, 2, 3, 4, 5, 1, 2])
    split = leave_last_out(taken)
    assert split.item_counts().tolist() == [1, 0, 4]
    assert split.user_counts().tolist() == [1, 0, 2]
    assert split.user_counts(include_validation=True).tolist() == [2, 0, 2]


def test_what_a_user_had_before_is_no_target():
    drawn = draw_examples(
        Lists.from_arrays([[5, 5, 7, 5, 8], [4, 4, 4]]), per_user=9, history_length=3, n_targets=2, seed=0
    )
    found = [(h.tolist(), t.tolist()) for h, t in zip(drawn.histories, drawn.targets, strict=True)]
    assert found == [([5], [7, 8]), ([5, 5], [7, 8]), ([5, 5, 7], [8]), ([5, 7, 5], [8])]
    before = drawn.before(Lists.from_arrays([[5, 5, 7, 5, 8], [4, 4, 4]]), length=4)
    assert [history.tolist() for history in before] == [[5], [5, 5], [5, 5, 7], [5, 5, 7, 5]]
    with pytest.raises(DataError, match="no user has two different items"):
        draw_examples(Lists.from_arrays([[4, 4]]), per_user=9, history_length=3, n_targets=2, seed=0)
