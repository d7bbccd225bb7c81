"""What lists offer beside relevance: variety within a list, share of the catalogue, and novelty."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.metrics.lists import lists_at_k

_USERS_PER_STEP = 1024  # the vectors of this many lists are held at a time


def ild_at_k(
    recommended: NDArray[np.integer[Any]], item_vectors: NDArray[np.floating[Any]], *, k: int
) -> NDArray[np.float64]:
    """Intra-list diversity: the mean cosine distance, 1 - cos, over all pairs among the first `k`.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        item_vectors: (n_items, D), of any length above 0.
        k: at least 1, at most K.

    Returns:
        (U,), within [0, 2]; 0 for a list with fewer than two items.

    Raises:
        ValueError: lists that `lists_at_k` refuses, an item without a vector, or a vector that is zero or not
            finite, also of an item in no list.

    Source: Ziegler et al., "Improving recommendation lists through topic diversification", WWW 2005, as a
    mean distance instead of a sum of similarities.

    >>> ild_at_k(np.array([[0, 1], [0, 2]]), np.array([[1.0, 0.0], [0.0, 3.0], [5.0, 0.0]]), k=2)
    array([1., 0.])
    """
    top = lists_at_k(recommended, k=k)
    vectors = np.asarray(item_vectors)
    if vectors.ndim != 2:
        raise ValueError(f"item_vectors: shape {vectors.shape} is not (n_items, D); give one vector per item")
    _check_range(top, n_items=len(vectors), where="item_vectors")
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    bad = ~(np.isfinite(norms) & (norms > 0))
    if bad.any():
        raise ValueError(
            f"item_vectors: the vector of item {int(np.argmax(bad))} is zero or not finite "
            f"({int(bad.sum())} such items); a cosine needs finite vectors that are not zero"
        )
    n_listed = (top >= 0).sum(axis=1)
    # Unit vectors that sum to s have a mean cosine of (|s|^2 - n) / (n (n - 1)): no loop over pairs.
    squared = np.concatenate(
        [
            _squared_length_of_sum(top[start : start + _USERS_PER_STEP], vectors, norms)
            for start in range(0, max(len(top), 1), _USERS_PER_STEP)
        ]
    )
    n_pairs = np.maximum(n_listed * (n_listed - 1), 1)
    distance = 1.0 - (squared - n_listed) / n_pairs
    return np.where(n_listed < 2, 0.0, np.clip(distance, 0.0, 2.0))


def coverage_at_k(recommended: NDArray[np.integer[Any]], *, k: int, n_items: int) -> float:
    """Share of the catalogue that is among the first `k` of at least one list.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        k: at least 1, at most K.
        n_items: size of the catalogue.

    Raises:
        ValueError: lists that `lists_at_k` refuses, `n_items` below 1, or an item outside the catalogue.

    >>> coverage_at_k(np.array([[0, 1], [0, 2]]), k=2, n_items=4)
    0.75
    """
    top = lists_at_k(recommended, k=k)
    if n_items < 1:
        raise ValueError(f"n_items: {n_items} is below 1; give the size of the catalogue")
    _check_range(top, n_items=n_items, where="n_items")
    return len(np.unique(top[top >= 0])) / n_items


def novelty_at_k(
    recommended: NDArray[np.integer[Any]], item_counts: NDArray[np.integer[Any]], *, k: int, n_users: int
) -> NDArray[np.float64]:
    """Mean self-information of the first `k`, in bits: -log2 of the share of users who took the item.

    The share is (count + 1) / (n_users + 1), so an item that nobody took has log2(n_users + 1) bits instead
    of infinitely many, and one that everybody took has 0.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        item_counts: (n_items,), number of distinct training users of each item.
        k: at least 1, at most K.
        n_users: number of training users.

    Returns:
        (U,), at least 0; NaN for an empty list.

    Raises:
        ValueError: lists that `lists_at_k` refuses, an item without a count, or a count outside 0..n_users.

    Source: Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS
    107(10), 2010, with one user added who took everything.

    >>> novelty_at_k(np.array([[0, 1]]), np.array([7, 0]), k=2, n_users=7)
    array([1.5])
    """
    top = lists_at_k(recommended, k=k)
    counts = np.asarray(item_counts)
    if counts.ndim != 1:
        raise ValueError(f"item_counts: shape {counts.shape} is not (n_items,); give one count per item")
    _check_range(top, n_items=len(counts), where="item_counts")
    bad = ~((counts >= 0) & (counts <= n_users))
    if bad.any():
        item = int(np.argmax(bad))
        raise ValueError(
            f"item_counts: {counts[item]} of item {item} is not within 0..{n_users}, the number of users; "
            "count each user once per item"
        )
    bits = -np.log2((counts + 1) / (n_users + 1))
    listed = top >= 0
    # An empty slot points at the last item; its bits are masked out.
    total = np.where(listed, bits[top], 0.0).sum(axis=1) if len(bits) else np.zeros(len(top))
    n_listed = listed.sum(axis=1)
    return np.divide(total, n_listed, out=np.full(len(top), np.nan), where=n_listed > 0)


def _squared_length_of_sum(
    top: NDArray[np.int64], vectors: NDArray[np.floating[Any]], norms: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Gives |sum of the unit vectors of a list|^2, (U,); an empty slot adds nothing."""
    if len(vectors) == 0:
        return np.zeros(len(top))
    scale = (top >= 0) / norms[top]
    total = np.einsum("uk,ukd->ud", scale, vectors[top])
    return np.einsum("ud,ud->u", total, total)


def _check_range(top: NDArray[np.int64], *, n_items: int, where: str) -> None:
    highest = int(top.max(initial=-1))
    if highest >= n_items:
        raise ValueError(
            f"{where}: item {highest} is recommended, but there are {n_items} items; give all of them"
        )
