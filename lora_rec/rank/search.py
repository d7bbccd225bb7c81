"""Exact top-k over the catalogue."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists


def top_k(
    user_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    *,
    k: int,
    exclude: Lists | None = None,
    block: int = 256,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Gives the best items of each user by dot product.

    Args:
        user_vectors: (U, D).
        item_vectors: (N, D).
        k: see `top_k_of`.
        exclude: see `top_k_of`.
        block: see `top_k_of`.
    """
    return top_k_of(
        lambda rows: user_vectors[rows] @ item_vectors.T,
        n_users=len(user_vectors),
        n_items=len(item_vectors),
        k=k,
        exclude=exclude,
        block=block,
    )


def top_k_of(
    score: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    *,
    n_users: int,
    n_items: int,
    k: int,
    exclude: Lists | None = None,
    allowed: NDArray[np.bool_] | None = None,
    block: int = 256,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Gives the best items of each user by any score.

    Args:
        score: gives new scores (B, N) for some users' numbers (B,).
        n_users: U.
        n_items: N.
        k: list length; at most N are given.
        exclude: U lists of items that are left out, e.g. those already seen.
        allowed: (N,), the items that may be given to anybody; all when left out.
        block: users scored at a time.

    Returns:
        Items (U, K) and scores (U, K), best first, K = min(k, N); equal scores by item index. A user with
        fewer than K items left has -1 and -inf at the end.

    Raises:
        ValueError: a score is not finite.
    """
    k = min(k, n_items)
    items = np.empty((n_users, k), dtype=np.int64)
    scores = np.empty((n_users, k), dtype=np.float32)
    for start in range(0, n_users, block):
        rows = np.arange(start, min(start + block, n_users))
        lists = None if exclude is None else exclude.take(rows)
        items[rows], scores[rows] = best_of(score(rows), k=k, exclude=lists, allowed=allowed)
    return items, scores


def best_of(
    scores: NDArray[np.float32],
    *,
    k: int,
    exclude: Lists | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Gives the best items of each row of scores (U, N), which are changed where items are left out.

    The arguments, what is given and the error are those of `top_k_of`.

    >>> items, _ = best_of(np.array([[1, 3, 2]], np.float32), k=2, exclude=Lists.from_arrays([[1]]))
    >>> items.tolist()
    [[2, 0]]
    """
    n_users, n_items = scores.shape
    k = min(k, n_items)
    if not np.isfinite(scores).all():  # the scores tell, and they are far fewer than the vectors' values
        raise ValueError("user_vectors, item_vectors: a value is not finite; check what made them")
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    if exclude is not None:
        scores[np.repeat(np.arange(n_users), exclude.counts), exclude.values] = -np.inf
    items = np.empty((n_users, k), dtype=np.int64)
    best_scores = np.empty((n_users, k), dtype=np.float32)
    # Every item that ties with the k-th could belong to the list, so the threshold decides, not the
    # partition.
    threshold = np.partition(scores, n_items - k, axis=1)[:, n_items - k]
    for row in range(n_users):
        found = np.flatnonzero(scores[row] >= threshold[row])
        best = found[np.argsort(-scores[row, found], kind="stable")[:k]]
        items[row], best_scores[row] = best, scores[row, best]
    items[np.isneginf(best_scores)] = -1
    return items, best_scores
