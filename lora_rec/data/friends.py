"""Friendships as pairs of users: from a table, as lists, and which to withhold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import EvaluationSet
from lora_rec.data.lists import Lists
from lora_rec.data.sources import read_table
from lora_rec.data.validate import DataProblem, check_table, raise_problems
from lora_rec.errors import DataError

if TYPE_CHECKING:
    from lora_rec.data.sources import Source

_Ints = NDArray[np.int64]
N_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class Friendships:
    """Who knows whom, as it was read."""

    pairs: _Ints
    """(E, 2), internal user ids, the smaller first; sorted, each once."""
    notes: tuple[str, ...] = ()
    """What was left out, with counts."""


def read_friends(
    source: Source,
    *,
    user_ids: NDArray[np.str_],
    user_column: str = "user_id",
    friend_column: str = "friend_id",
    some_left_out: bool = False,
) -> Friendships:
    """Reads a table of friendships, one per row, in one direction or in both.

    Args:
        source: see `sources.read_table`.
        user_ids: those of the data set, by internal id.
        user_column: ids of users.
        friend_column: ids of their friends.
        some_left_out: users of the data were left out on purpose, by a filter; then so are their friendships.

    Raises:
        DataError: lists everything that is wrong with the table, users that the data does not have included.
    """
    table = read_table(source, name="friends")
    checked = check_table(table, name="friends", ids=[user_column, friend_column])
    raise_problems(checked.problems)
    columns = [checked.ids[user_column], checked.ids[friend_column]]
    names = np.stack([ids.names[ids.codes] for ids in columns], axis=1)
    return match_friends(names, user_ids=user_ids, some_left_out=some_left_out)


def match_friends(
    names: NDArray[np.str_], *, user_ids: NDArray[np.str_], some_left_out: bool = False
) -> Friendships:
    """Turns pairs of external ids (R, 2) into friendships; see `read_friends`.

    >>> match_friends(np.array([["a", "b"], ["b", "a"]]), user_ids=np.array(["b", "a"])).notes
    ('friend rows that repeat a friendship, left out: 1',)
    """
    order = np.argsort(user_ids)
    places = np.searchsorted(user_ids, names, sorter=order)
    pairs = order[np.minimum(places, len(order) - 1)]
    known = (user_ids[pairs] == names).all(axis=1)
    if len(known) and not (known.all() or (some_left_out and known.any())):
        raise_problems([_unknown(names, pairs, known, user_ids)])
    own = known & (pairs[:, 0] == pairs[:, 1])
    kept = np.sort(pairs[known & ~own], axis=1).astype(np.int64)
    distinct = np.unique(kept, axis=0).reshape(-1, 2)
    dropped = {
        "of users whom a filter left out": int((~known).sum()),
        "of users who are their own friend": int(own.sum()),
        "that repeat a friendship": len(kept) - len(distinct),
    }
    notes = tuple(f"friend rows {why}, left out: {count:,}" for why, count in dropped.items() if count)
    return Friendships(distinct, notes)


def _unknown(
    names: NDArray[np.str_], pairs: _Ints, known: NDArray[np.bool_], user_ids: NDArray[np.str_]
) -> DataProblem:
    rows = np.flatnonzero(~known)
    wrong = [names[row][user_ids[pairs[row]] != names[row]][0] for row in rows[:N_EXAMPLES]]
    examples = tuple(f"row {row}: {str(name)!r}" for row, name in zip(rows, wrong, strict=False))
    noun = "row" if len(rows) == 1 else "rows"
    fix = "drop those rows"
    if not known.any():
        fix = f"the data has ids like {user_ids[:N_EXAMPLES].tolist()}: do both use the same ids?"
    what = f"{len(rows):,} {noun} with a user who has no interactions"
    return DataProblem("friends", what, fix, len(rows), examples)


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

    A pair that is there twice, also the other way round, is one: or what is withheld would still be known.

    >>> known, withheld = withhold_friends(np.array([[0, n] for n in range(1, 11)]), share=0.2)
    >>> len(known), len(withheld)
    (8, 2)
    """
    friends = np.unique(np.sort(friends, axis=1), axis=0)
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
