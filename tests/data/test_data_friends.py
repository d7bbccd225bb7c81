import numpy as np
import pytest

from lora_rec.data.friends import evaluate_on_friends, list_friends, withhold_friends
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
