import numpy as np
import pytest

from lora_rec.data import Dataset, EvaluationSet, Lists
from lora_rec.data.dataset import Log
from lora_rec.errors import DataError


def small(**changes):
    values = {
        "user_ids": np.array(["a", "b"]),
        "item_ids": np.array(["x", "y", "z"]),
        "item_fields": {"title": ("X", "", "Z")},
        "users": np.array([0, 0, 1]),
        "items": np.array([2, 0, 2]),
        "times": np.array([5, 5, 1]),
    }
    return Dataset(**{**values, **changes})


def test_counts():
    dataset = small()
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (2, 3, 3)


def test_an_item_without_interactions_is_in_the_catalogue():
    assert small().item_ids[1] == "y"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"users": [0, 0, 2]}, r"dataset.users: id 2 is outside 0..1; use the internal ids"),
        ({"items": [0, -1, 1]}, r"dataset.items: id -1 is outside 0..2"),
        ({"items": [0, 1]}, r"dataset.items: 2 values where 3 are needed; give one per entry"),
        ({"items": [0.0, 1.0, 2.0]}, r"dataset.items: values of type float64; give int64"),
        ({"users": [[0, 0, 1]]}, r"dataset.users: an array of shape \(1, 3\); give one dimension"),
        ({"users": [1, 0, 0]}, r"dataset: row 1 comes before row 0; sort by user, then time"),
        ({"times": [6, 5, 1]}, r"dataset: row 1 comes before row 0; sort by user, then time"),
        (
            {"item_ids": np.array(["x", "x", "z"])},
            r"dataset.item_ids: an id is there twice; give each id once",
        ),
        ({"user_ids": [1, 2]}, r"dataset.user_ids: values of type int64; give str"),
        ({"item_fields": {"title": ("X",)}}, r"dataset.item_fields\['title'\]: 1 texts for 3 items"),
        ({"item_fields": {"title": ("X", None, "Z")}}, r"dataset.item_fields\['title'\]: None is no string"),
    ],
)
def test_a_data_set_checks_itself(changes, message):
    with pytest.raises(DataError, match=message):
        small(**changes)


def test_lists_take_and_iterate():
    lists = Lists.from_arrays([[3, 1], [], [2, 2, 7]])
    assert [a.tolist() for a in lists] == [[3, 1], [], [2, 2, 7]]
    assert [a.tolist() for a in lists.take([2, 1, 2])] == [[2, 2, 7], [], [2, 2, 7]]
    assert lists[-1].tolist() == [2, 2, 7]
    assert lists.counts.tolist() == [2, 0, 3]
    with pytest.raises(IndexError):
        lists[3]


def test_no_lists_at_all():
    assert len(Lists.from_arrays([])) == 0
    assert len(Lists.from_arrays([[1]]).take([])) == 0


@pytest.mark.parametrize("offsets", [[], [0, 2], [1, 3], [0, 3, 2, 3]])
def test_offsets_that_do_not_cut_the_values(offsets):
    with pytest.raises(DataError, match=r"lists.offsets: .* do not cut 3 values into arrays; start at 0"):
        Lists(np.array([1, 2, 3]), np.array(offsets, np.int64))


def test_an_evaluation_set_needs_targets():
    some, empty = Lists.from_arrays([[1], [2]]), Lists.from_arrays([[1], []])
    with pytest.raises(DataError, match=r"evaluation.targets: user 8 has none; leave out users without"):
        EvaluationSet(np.array([4, 8]), histories=some, targets=empty)
    with pytest.raises(DataError, match=r"evaluation.histories: 2 lists for 1 users; give as many"):
        EvaluationSet(np.array([4]), histories=some, targets=some)


def test_lists_carry_strengths_along():
    lists = Lists.from_arrays([[3, 1], [], [2]], strengths=[[1.0, 9.0], [], [4.0]])
    assert lists.take([2, 0]).strengths.tolist() == [4.0, 1.0, 9.0]
    assert lists.keep(np.array([True, True, True, False])).strengths.tolist() == [9.0, 4.0]
    relative = lists.relative_strengths()
    np.testing.assert_allclose(relative[:2].mean(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(relative[1] / relative[0], np.log(10) / np.log(2), rtol=1e-6)
    assert relative[2] == 1.0


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_strength_that_is_no_count_is_refused(bad):
    with pytest.raises(DataError, match="strengths.*above 0"):
        Lists.from_arrays([[3, 1]], strengths=[[1.0, bad]])


def test_a_log_joins_a_later_one_user_by_user():
    first = Log(
        np.array([0, 0, 2]), np.array([5, 6, 7]), np.array([1, 2, 3]), np.array([1.0, 2.0, 3.0], "f4")
    )
    later = Log(np.array([0, 1]), np.array([8, 9]), np.array([4, 5]), np.array([4.0, 5.0], "f4"))
    both = first.then(later)
    assert both.users.tolist() == [0, 0, 0, 1, 2]
    assert both.items.tolist() == [5, 6, 8, 9, 7]
    assert both.histories(3).strengths.tolist() == [1.0, 2.0, 4.0, 5.0, 3.0]
    with pytest.raises(DataError, match="sort by user"):
        Log(np.array([1, 0]), np.array([0, 0]))


def test_a_log_joins_one_that_lies_between():
    first = Log(np.array([0, 0]), np.array([5, 6]), np.array([1, 7]), ratings=np.array([1.0, 2.0]))
    between = Log(np.array([0, 0]), np.array([8, 9]), np.array([4, 7]), ratings=np.array([4.0, 5.0]))
    both = first.then(between)
    assert both.items.tolist() == [5, 8, 6, 9]
    assert both.ratings.tolist() == [1, 4, 2, 5]
