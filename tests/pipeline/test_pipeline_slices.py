"""Parts of the users, on a split whose parts are known."""

import numpy as np
import pytest

from lora_rec.data import Dataset, leave_last_out
from lora_rec.metrics import ndcg_at_k, paired_difference
from lora_rec.pipeline.slices import CATEGORY, LENGTH, POPULARITY, Slice, head_items, in_groups, slice_users
from lora_rec.rank.categories import Categories

N_USERS, N_ITEMS = 24, 30


@pytest.fixture(scope="module")
def split():
    """Everybody takes items 0 to 2, half of them 3 to 6 as well, then one that hardly anybody took."""
    users, items = [], []
    for user in range(N_USERS):
        own = [0, 1, 2, *(range(3, 7) if user % 2 else ()), 10 + user % 3 if user < 12 else 18 + user % 12]
        users += [user] * len(own)
        items += own
    return leave_last_out(
        Dataset(
            user_ids=np.array([str(user) for user in range(N_USERS)]),
            item_ids=np.array([str(item) for item in range(N_ITEMS)]),
            item_fields={},
            users=np.array(users),
            items=np.array(items),
        ),
        ordered=True,
    )


def lists_with(split, hits):
    """Lists of four items; those of the users in `hits` begin with their target."""
    lists = np.tile(np.arange(13, 17), (len(split.test), 1))
    lists[hits, 0] = [split.test.targets[row][0] for row in hits]
    return lists


def test_a_part_is_judged_alone(split):
    lists = {"ranking_head": lists_with(split, range(12)), "ease": lists_with(split, [0, 1])}
    slices = {(part.group, part.name): part for part in slice_users(lists, split, k=4)}
    # Nobody took a target before: all are rare, and a part without targets is not there.
    (rare,) = [part for (group, _), part in slices.items() if group == POPULARITY]
    assert rare.name.startswith("rare") and rare.n_users == N_USERS
    assert rare.ndcg == {"ranking_head": 0.5, "ease": pytest.approx(2 / 24)}
    short, long = [part for (group, _), part in slices.items() if group == LENGTH]
    assert (short.name, long.name) == ("3 items", "7 items")
    rows = np.flatnonzero(split.test.histories.counts == 7)
    wanted = list(split.test.targets.take(rows))
    own, other = (ndcg_at_k(lists[name][rows], wanted, k=4) for name in ("ranking_head", "ease"))
    assert long.ndcg["ranking_head"] == own.mean()
    assert long.difference == paired_difference(own, other)


def test_a_category_has_the_users_who_took_one_of_it(split):
    weights = np.zeros((N_ITEMS, 3), "f4")
    weights[10:13, 0] = weights[18:30, 1] = 1
    weights[10, 2] = 1  # of four users: too few to be told
    categories = Categories(("one", "two", "three"), weights)
    slices = slice_users({"ease": lists_with(split, range(12))}, split, k=4, categories=categories)
    found = {part.name: part for part in slices if part.group == CATEGORY}
    assert {name: part.n_users for name, part in found.items()} == {"one": 12, "two": 12}
    assert (found["one"].ndcg["ease"], found["two"].ndcg["ease"]) == (1.0, 0.0)
    assert found["one"].difference is None  # nothing to compare with


def test_a_part_is_read_as_it_was_written(split):
    lists = {"ranking_head": lists_with(split, range(12)), "ease": lists_with(split, [0, 1])}
    for part in (*slice_users(lists, split, k=4), *slice_users({"ease": lists["ease"]}, split, k=4)):
        assert Slice.from_json(part.to_json()) == part


def test_rare_items_are_no_head():
    assert not head_items(np.array([2, 2, 1, 0])).any()
    assert not head_items(np.zeros(3, dtype=np.int64)).any()


def test_items_taken_equally_often_are_in_one_part():
    assert head_items(np.array([14, 14, 14, 14])).all()
    assert head_items(np.array([5, 9, 5, 5, 3])).tolist() == [True, True, True, True, False]


def test_a_part_that_is_alone_in_its_group_is_everybody():
    parts = [
        Slice(group, name, 9, {}, None)
        for group, name in ((LENGTH, "8 items"), (CATEGORY, "a"), (CATEGORY, "b"))
    ]
    assert [part.name for part in in_groups(parts)] == ["a", "b"]
