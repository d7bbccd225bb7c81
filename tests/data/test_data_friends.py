import numpy as np
import pandas as pd
import pytest

from lora_rec.data.friends import evaluate_on_friends, list_friends, read_friends, withhold_friends
from lora_rec.errors import DataError

FRIENDS = np.array([[a, b] for a in range(9) for b in range(a + 1, 9)])


def test_what_is_withheld_is_not_known_and_a_seed_repeats():
    known, withheld = withhold_friends(FRIENDS, share=0.25, seed=4)
    assert len(withheld) == 9
    together = np.concatenate([known, withheld])
    assert sorted(map(tuple, together)) == sorted(map(tuple, FRIENDS))
    assert np.array_equal(withhold_friends(FRIENDS, share=0.25, seed=4)[1], withheld)
    assert not np.array_equal(withhold_friends(FRIENDS, share=0.25, seed=5)[1], withheld)


def test_who_lost_a_friend_is_asked_for():
    judged = evaluate_on_friends(np.array([[0, 1], [1, 3]]), np.array([[0, 3], [3, 4]]), n_users=6)
    assert judged.users.tolist() == [0, 3, 4]
    assert [a.tolist() for a in judged.targets] == [[3], [0, 4], [3]]
    assert [a.tolist() for a in judged.histories] == [[0, 1], [1, 3], [4]]


def test_a_pair_that_is_there_twice_counts_once():
    assert list_friends(np.array([[0, 1], [1, 0], [0, 1]]), n_users=2).counts.tolist() == [1, 1]


@pytest.mark.parametrize(("pairs", "what"), [([[0, 7]], r"outside 0..4"), ([[3, 3]], "user 3 is their own")])
def test_wrong_pairs_are_refused(pairs, what):
    with pytest.raises(DataError, match=what):
        list_friends(np.array(pairs), n_users=5)


USERS = np.array(["7", "ann", "12", "bob"])


def read(rows, **settings):
    return read_friends(pd.DataFrame(rows, columns=["user_id", "friend_id"]), user_ids=USERS, **settings)


def test_a_table_in_either_direction_is_cleaned_and_counted():
    found = read([["bob", "7"], ["7", "bob"], ["ann", "7"], ["12", "12"], ["ann", "7"]])
    assert found.pairs.tolist() == [[0, 1], [0, 3]]
    assert found.notes == (
        "friend rows of users who are their own friend, left out: 1",
        "friend rows that repeat a friendship, left out: 2",
    )
    assert read([["bob", "7"]]).notes == ()


def test_columns_are_named_and_numbers_are_ids(tmp_path):
    (tmp_path / "knows.tsv").write_text("a\tb\n12\t7\n")
    found = read_friends(tmp_path / "knows.tsv", user_ids=USERS, user_column="a", friend_column="b")
    assert found.pairs.tolist() == [[0, 2]]
    with pytest.raises(DataError, match=r"friends\.user_id: no such column.*columns: a, b"):
        read_friends(tmp_path / "knows.tsv", user_ids=USERS, friend_column="b")


def test_unknown_users_are_told_at_once():
    rows = [["bob", "7"], ["eve", "7"], ["ann", "mallory"], ["eve", "mallory"]]
    with pytest.raises(DataError, match="friends: 3 rows with a user who has no interactions") as error:
        read(rows)
    assert "row 1: 'eve', row 2: 'mallory', row 3: 'eve'" in str(error.value)
    # A filter left them out: so are their friendships.
    found = read(rows, some_left_out=True)
    assert found.pairs.tolist() == [[0, 3]]
    assert found.notes == ("friend rows of users whom a filter left out, left out: 3",)
    with pytest.raises(DataError, match="do both use the same ids"):
        read([["u1", "u2"]], some_left_out=True)


def test_pairs_told_both_ways_are_withheld_both_ways():
    both = np.concatenate([FRIENDS, FRIENDS[:, ::-1]])
    for given, found in zip(withhold_friends(FRIENDS, seed=3), withhold_friends(both, seed=3), strict=True):
        assert np.array_equal(given, found)
