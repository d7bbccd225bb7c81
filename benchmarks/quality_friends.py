"""Friend recommendation, a case of the quality benchmark: Last.fm with a tenth of its friendships withheld.

Every seed is another draw of the withheld friendships. A system knows the rest and what everybody plays. It
ranks for every user who lost a friend all who are not known to be friends (`ndcg@10`), and scores the
withheld friendships against ten times as many random pairs who were never friends (`auc`, one value per
friendship: the share of those pairs that it scores lower). Ours chooses on a tenth of what is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality_judge import Answer, K, System, pool_top
from quality_sets import FOLDERS
from quality_texts import embed_texts

from lora_rec.data import Dataset
from lora_rec.data.friends import evaluate_on_friends, withhold_friends
from lora_rec.data.publishers import PUBLISHERS, load_published
from lora_rec.metrics import ndcg_at_k
from lora_rec.pipeline.friends import choose_friend_settings, tastes_of
from lora_rec.text.domains import DOMAINS
from lora_rec.text.templates import render_items
from lora_rec.train.friends import FriendFit

FRIENDS = "lastfm-friends"
WITHHELD_SHARE = 0.1
STRANGERS = 10
"""Pairs of strangers for each withheld friendship."""
TIE_SEED = 0
_Ints = NDArray[np.int64]
Scorer = Callable[[_Ints], NDArray[np.float32]]
"""Gives scores (B, n) for some users; alike in both directions of a pair."""


@dataclass(frozen=True, eq=False)
class FriendsSet:
    """What is known before friendships are withheld."""

    name: str
    dataset: Dataset
    friends: _Ints
    """(E, 2)"""
    item_vectors: NDArray[np.float32]
    """(N, D), of the frozen MiniLM."""


def prepare_friends(data_root: Path, cache: Path) -> FriendsSet:
    """Reads Last.fm; arguments are those of `quality_sets.prepare_set`."""
    publisher, folder = FOLDERS["lastfm"]
    published = load_published(publisher, data_root / folder)
    assert published.friends is not None  # the publisher has them
    template = DOMAINS[PUBLISHERS[publisher].domain].item_template
    texts = tuple(render_items(template, published.dataset.item_fields))
    return FriendsSet(FRIENDS, published.dataset, published.friends, embed_texts(texts, cache))


def judge(scorer: Scorer, friends: _Ints, *, n_users: int, seed: int) -> dict[str, NDArray[np.generic]]:
    """Gives `auc` of each friendship that this seed withholds, and `ndcg@10` of each user who lost one."""
    known, withheld = withhold_friends(friends, share=WITHHELD_SHARE, seed=seed)
    judged = evaluate_on_friends(known, withheld, n_users=n_users)
    pool = np.random.default_rng(TIE_SEED).permutation(n_users).astype(np.int64)
    scores = np.array(scorer(judged.users), dtype=np.float32)
    rows = np.repeat(np.arange(len(judged)), judged.histories.counts)
    scores[rows, judged.histories.values] = -np.inf
    lists = pool_top(scores[:, pool], pool)
    ndcg = ndcg_at_k(lists, list(judged.targets), k=K)
    strangers = draw_strangers(friends, n_users=n_users, n_pairs=STRANGERS * len(withheld), seed=seed)
    high, low = _of_pairs(scorer, withheld), np.sort(_of_pairs(scorer, strangers))
    below = np.searchsorted(low, high, side="left") + np.searchsorted(low, high, side="right")
    return {"auc": below / (2 * len(low)), f"ndcg@{K}": ndcg}


def draw_strangers(friends: _Ints, *, n_users: int, n_pairs: int, seed: int) -> _Ints:
    """Draws distinct pairs of users who are not friends."""
    ordered = np.sort(friends, axis=1)
    taken = ordered[:, 0] * n_users + ordered[:, 1]
    pairs = np.sort(np.random.default_rng(seed).integers(n_users, size=(3 * n_pairs, 2)), axis=1)
    codes = pairs[:, 0] * n_users + pairs[:, 1]
    _, first = np.unique(codes, return_index=True)
    kept = np.sort(first)
    kept = kept[(pairs[kept, 0] != pairs[kept, 1]) & ~np.isin(codes[kept], taken)]
    if len(kept) < n_pairs:
        raise ValueError(f"strangers: {len(kept)} of {n_pairs} pairs; too many users are friends")
    return pairs[kept[:n_pairs]]


def _of_pairs(scorer: Scorer, pairs: _Ints) -> NDArray[np.float32]:
    users, rows = np.unique(pairs[:, 0], return_inverse=True)
    return scorer(users)[rows, pairs[:, 1]]


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


def _baseline(build: Callable[[_Ints, int], Scorer]) -> System:
    def run(prepared: FriendsSet, seed: int, trials: int) -> Answer:
        known, _ = withhold_friends(prepared.friends, share=WITHHELD_SHARE, seed=seed)
        n_users = prepared.dataset.n_users
        return Answer(judge(build(known, n_users), prepared.friends, n_users=n_users, seed=seed))

    return System(run, lambda prepared: "", seeded=True)  # type: ignore[arg-type]


def run_ours(prepared: FriendsSet, seed: int, trials: int) -> Answer:
    """Chooses on a tenth of the known friendships, and fits again on all of them."""
    known, _ = withhold_friends(prepared.friends, share=WITHHELD_SHARE, seed=seed)
    tastes = tastes_of(prepared.dataset, item_vectors=prepared.item_vectors)
    choice = choose_friend_settings(known, tastes, n_fits=trials, seed=seed)
    model = FriendFit(known, tastes).model(choice.settings)
    results = judge(model.scores, prepared.friends, n_users=prepared.dataset.n_users, seed=seed)
    return Answer(results, asdict(choice.settings), choice.validation, trials)


FRIEND_SYSTEMS: dict[str, System] = {
    "degree": _baseline(degree_scorer),
    "common_neighbours": _baseline(common_scorer),
    "adamic_adar": _baseline(adamic_adar_scorer),
    "lora_rec_friends_frozen": System(run_ours, lambda prepared: "", seeded=True),  # type: ignore[arg-type]
}
"""Each row of `quality` has the draws of the withheld friendships as its seeds."""
