"""Friendships as pairs of users: who knows whom, and which to withhold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_rec.data import EvaluationSet, Lists
from lora_rec.errors import DataError

_Ints = NDArray[np.int64]


def list_friends(friends: _Ints, *, n_users: int) -> Lists:
    """Gives the friends of users 0..n_users-1, each list sorted.

    Args:
        friends: (E, 2), undirected pairs of internal user ids; a pair that is there twice counts once.
        n_users: how many lists to give.

    Raises:
        DataError: a user is outside 0..n_users-1, or their own friend.

    >>> [a.tolist() for a in list_friends(np.array([[0, 2], [1, 2]]), n_users=3)]
    [[2], [2], [0, 1]]
    """
    pairs = np.asarray(friends, np.int64).reshape(-1, 2)
    if pairs.size and (pairs.min() < 0 or pairs.max() >= n_users):
        raise DataError(f"friends: a user is outside 0..{n_users - 1}; use internal user ids")
    if (pairs[:, 0] == pairs[:, 1]).any():
        user = pairs[pairs[:, 0] == pairs[:, 1]][0, 0]
        raise DataError(f"friends: user {user} is their own friend; drop the pair")
    both = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    return Lists.from_groups(both[:, 0], both[:, 1], n_groups=n_users)


def withhold_friends(friends: _Ints, *, share: float = 0.1, seed: int = 0) -> tuple[_Ints, _Ints]:
    """Parts friendships at random into those that are known, and those to be found again.

    >>> known, withheld = withhold_friends(np.array([[0, n] for n in range(1, 11)]), share=0.2)
    >>> len(known), len(withheld)
    (8, 2)
    """
    drawn = np.random.default_rng(seed).permutation(len(friends))
    n_withheld = round(share * len(friends))
    return friends[np.sort(drawn[n_withheld:])], friends[np.sort(drawn[:n_withheld])]


def evaluate_on_friends(known: _Ints, withheld: _Ints, *, n_users: int) -> EvaluationSet:
    """Gives the users who lost a friend: targets are the friends that were withheld.

    Where an evaluation set has the history, which is not recommended again, it has here the known friends
    and the user's own number.
    """
    targets = list_friends(withheld, n_users=n_users)
    users = np.flatnonzero(targets.counts)
    return EvaluationSet(
        users, not_to_suggest(list_friends(known, n_users=n_users), users), targets.take(users)
    )


def not_to_suggest(friends: Lists, users: _Ints) -> Lists:
    """Gives each user's friends and the user, sorted.

    >>> [a.tolist() for a in not_to_suggest(Lists.from_arrays([[2], [], [0]]), np.array([2, 1]))]
    [[0, 2], [1]]
    """
    own = friends.take(users)
    rows = np.concatenate([np.repeat(np.arange(len(users)), own.counts), np.arange(len(users))])
    values = np.concatenate([own.values, users])
    order = np.lexsort((values, rows))
    return Lists.from_groups(rows[order], values[order], n_groups=len(users))
