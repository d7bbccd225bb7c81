"""How friend recommendation is judged: a tenth of the friendships is withheld and has to be found again.

A system ranks for every user who lost a friend all who are not known to be friends (`ndcg@10`), and scores
the withheld friendships against ten times as many random pairs who were never friends (`auc`, one value per
friendship: the share of those pairs that it scores lower).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.friends import evaluate_on_friends, withhold_friends
from lora_rec.data.lists import Lists
from lora_rec.errors import DataError
from lora_rec.metrics import ndcg_at_k
from lora_rec.pipeline.friends import WITHHELD_SHARE
from lora_rec.pipeline.judge import JUDGED_K
from lora_rec.rank.friends import USERS_AT_ONCE
from lora_rec.rank.search import top_k_of

STRANGERS = 10
"""Pairs of strangers for each withheld friendship."""
TIE_SEED = 0
_Ints = NDArray[np.int64]
Scorer = Callable[[_Ints], NDArray[np.float32]]
"""Gives scores (B, n) for some users; alike in both directions of a pair."""


def judge_friends(
    scorer: Scorer, friends: _Ints, *, n_users: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Gives `auc` of each friendship that this seed withholds, and `ndcg@10` of each user who lost one.

    Args:
        scorer: knows what `withhold_friends` with this seed leaves.
        friends: (E, 2), all friendships.
        n_users: n.
        seed: of the withheld friendships and of the strangers.
    """
    known, withheld = withhold_friends(friends, share=WITHHELD_SHARE, seed=seed)
    judged = evaluate_on_friends(known, withheld, n_users=n_users)
    # Many pairs have equal counts; in the order of ids, old users would win every tie.
    pool = np.random.default_rng(TIE_SEED).permutation(n_users).astype(np.int64)
    places, _ = top_k_of(
        lambda rows: scorer(judged.users[rows])[:, pool].astype(np.float32),
        n_users=len(judged.users),
        n_items=n_users,
        k=JUDGED_K,
        exclude=Lists(np.argsort(pool)[judged.histories.values], judged.histories.offsets),
        block=USERS_AT_ONCE,
    )
    lists = np.where(places < 0, -1, pool[places])
    ndcg = ndcg_at_k(lists, list(judged.targets), k=min(JUDGED_K, lists.shape[1]))
    strangers = draw_strangers(friends, n_users=n_users, n_pairs=STRANGERS * len(withheld), seed=seed)
    high, low = _of_pairs(scorer, withheld), np.sort(_of_pairs(scorer, strangers))
    below = np.searchsorted(low, high, side="left") + np.searchsorted(low, high, side="right")
    return {"auc": below / (2 * len(low)), f"ndcg@{JUDGED_K}": ndcg}


def draw_strangers(friends: _Ints, *, n_users: int, n_pairs: int, seed: int) -> _Ints:
    """Draws distinct pairs of users who are not friends.

    Raises:
        DataError: there are too few.
    """
    ordered = np.sort(friends, axis=1)
    taken = ordered[:, 0] * n_users + ordered[:, 1]
    pairs = np.sort(np.random.default_rng(seed).integers(n_users, size=(3 * n_pairs, 2)), axis=1)
    codes = pairs[:, 0] * n_users + pairs[:, 1]
    _, first = np.unique(codes, return_index=True)
    kept = np.sort(first)
    kept = kept[(pairs[kept, 0] != pairs[kept, 1]) & ~np.isin(codes[kept], taken)]
    if len(kept) < n_pairs:
        raise DataError(
            f"friends: {len(kept)} of {n_pairs} pairs of strangers; too many users are friends for a test"
        )
    return pairs[kept[:n_pairs]]


def _of_pairs(scorer: Scorer, pairs: _Ints) -> NDArray[np.float32]:
    result = np.empty(len(pairs), dtype=np.float32)
    order = np.argsort(pairs[:, 0], kind="stable")
    users, starts = np.unique(pairs[order, 0], return_index=True)
    for first in range(0, len(users), USERS_AT_ONCE):
        some = slice(first, first + USERS_AT_ONCE)
        mine = order[starts[first] : starts[some.stop] if some.stop < len(users) else None]
        result[mine] = scorer(users[some])[np.searchsorted(users[some], pairs[mine, 0]), pairs[mine, 1]]
    return result


def _adjacency(friends: _Ints, n_users: int) -> NDArray[np.float32]:
    matrix = np.zeros((n_users, n_users), np.float32)
    matrix[friends[:, 0], friends[:, 1]] = matrix[friends[:, 1], friends[:, 0]] = 1
    return matrix


def degree_scorer(friends: _Ints, n_users: int) -> Scorer:
    """Multiplies how many friends both have."""
    degrees = _adjacency(friends, n_users).sum(axis=1)
    return lambda users: degrees[users, None] * degrees


def common_scorer(friends: _Ints, n_users: int) -> Scorer:
    """Counts common friends."""
    known = _adjacency(friends, n_users)
    return lambda users: known[users] @ known


def adamic_adar_scorer(friends: _Ints, n_users: int) -> Scorer:
    """Counts common friends, each by one over the logarithm of how many friends they have."""
    known = _adjacency(friends, n_users)
    # A common friend of two has two friends at least.
    weights = 1 / np.log(np.maximum(known.sum(axis=1), 2))
    return lambda users: (known[users] * weights) @ known
