"""How the parts of the ranking head are judged on validation users."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import EvaluationSet
from lora_rec.data.lists import Lists
from lora_rec.metrics import ndcg_at_k
from lora_rec.rank.search import best_of, users_at_once

JUDGED_USERS = 4000
"""So many validation users, drawn once, tell one setting from another well enough."""
JUDGED_K = 10


def draw_users(validation: EvaluationSet) -> EvaluationSet:
    """Gives at most `JUDGED_USERS` of the users, always the same."""
    if len(validation) <= JUDGED_USERS:
        return validation
    return validation.take(
        np.sort(np.random.default_rng(0).choice(len(validation), JUDGED_USERS, replace=False))
    )


def mean_ndcg(lists: NDArray[np.int64], judged: EvaluationSet) -> float:
    """Gives the mean `ndcg@10` of lists (U, 10), or as long as a small catalogue makes them."""
    return float(ndcg_at_k(lists, list(judged.targets), k=min(JUDGED_K, lists.shape[1])).mean())


def best_lists(
    variants: Callable[[NDArray[np.int64]], Iterator[NDArray[np.float32]]],
    n_users: int,
    *,
    n_items: int,
    n_variants: int,
    exclude: Lists | None = None,
) -> list[NDArray[np.int64]]:
    """Ranks by many scores that share most of their work.

    Args:
        variants: takes some users' numbers (B,) and gives the scores (B, N) of one variant after another,
            each of which may be changed.
        n_users: U.
        n_items: N, which with U says how many users' scores are asked for at a time.
        n_variants: how many it gives.
        exclude: U lists of items that are left out.

    Returns:
        For each variant the lists (U, 10), -1 where one ends early.
    """
    lists = [np.full((n_users, JUDGED_K), -1, dtype=np.int64) for _ in range(n_variants)]
    block = users_at_once(n_items)
    for start in range(0, n_users, block):
        rows = np.arange(start, min(start + block, n_users))
        left_out = None if exclude is None else exclude.take(rows)
        for found, scores in zip(lists, variants(rows), strict=True):
            items, _ = best_of(scores, k=JUDGED_K, exclude=left_out)
            found[rows, : items.shape[1]] = items
    return lists
