"""Variety within each list, by the vectors of its items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.metrics.lists import check_items, lists_at_k

_SLOTS_PER_STEP = 8192  # the vectors of this many slots are held at a time


def ild_at_k(
    recommended: NDArray[np.integer[Any]], item_vectors: NDArray[np.floating[Any]], *, k: int
) -> NDArray[np.float64]:
    """Intra-list diversity: the mean cosine distance, 1 - cos, over all pairs among the first `k`.

    The vectors may be of any space: texts, categories (`category_ild_at_k` knows items without one), or one
    that no compared system has learned, so that none is judged by its own.

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
    mean distance instead of a sum of similarities. The same as `IntraListDiversity` of rectools with a cosine
    distance, and as 1 minus `intra_list_similarity` of recmetrics.

    >>> ild_at_k(np.array([[0, 1], [0, 2]]), np.array([[1.0, 0.0], [0.0, 3.0], [5.0, 0.0]]), k=2)
    array([1., 0.])
    """
    top, vectors, norms = _check(recommended, item_vectors, k=k)
    return mean_distance(top, vectors, norms)


def ild_min_at_k(
    recommended: NDArray[np.integer[Any]], item_vectors: NDArray[np.floating[Any]], *, k: int
) -> NDArray[np.float64]:
    """The smallest cosine distance, 1 - cos, of two items among the first `k`: near 0 where two are alike.

    A mean hides one pair of near copies in a list that is diverse otherwise; the minimum shows it. Arguments
    and errors are those of `ild_at_k`.

    Returns:
        (U,), within [0, 2], never above `ild_at_k`; 0 for a list with fewer than two items.

    Source: the objective of the Max-Min dispersion problem; Gollapudi and Sharma, "An axiomatic approach for
    result diversification", WWW 2009.

    >>> ild_min_at_k(np.array([[0, 1, 2], [0, 1, -1]]), np.array([[1.0, 0.0], [0.0, 3.0], [5.0, 0.0]]), k=3)
    array([0., 1.])
    """
    top, vectors, norms = _check(recommended, item_vectors, k=k)
    smallest = np.zeros(len(top))
    rows = np.flatnonzero((top[:, :2] >= 0).sum(axis=1) == 2)  # empty slots are at the end
    first, second = np.triu_indices(k, 1)
    for some in _steps(rows, k=k):
        lists = top[some]
        units = vectors[lists] / norms[lists][:, :, None]
        distance = 1.0 - np.einsum("uid,ujd->uij", units, units, optimize=True)[:, first, second]
        distance[(lists[:, first] < 0) | (lists[:, second] < 0)] = np.inf
        smallest[some] = np.clip(distance.min(axis=1), 0.0, 2.0)
    return smallest


def mean_distance(
    top: NDArray[np.int64], vectors: NDArray[np.floating[Any]], norms: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Gives the mean cosine distance of the pairs of each list, (U,), 0 for fewer than two items.

    Args:
        top: (U, k), checked lists.
        vectors: (n_items, D).
        norms: (n_items,), their lengths; an item with length 0 is at distance 1 from all others.
    """
    squared, own = np.zeros(len(top)), np.zeros(len(top))
    inverse = np.divide(1.0, norms, out=np.zeros(len(norms)), where=norms > 0)
    # Unit vectors that sum to s have pairs whose cosines sum to (|s|^2 - n) / 2: no loop over pairs.
    for some in _steps(np.flatnonzero(top[:, 0] >= 0), k=top.shape[1]):
        scale = (top[some] >= 0) * inverse[top[some]]
        total = np.einsum("uk,ukd->ud", scale, vectors[top[some]])
        squared[some] = np.einsum("ud,ud->u", total, total)
        own[some] = (scale > 0).sum(axis=1)
    n_listed = (top >= 0).sum(axis=1)
    distance = 1.0 - (squared - own) / np.maximum(n_listed * (n_listed - 1), 1)
    return np.where(n_listed < 2, 0.0, np.clip(distance, 0.0, 2.0))


def _check(
    recommended: NDArray[np.integer[Any]], item_vectors: NDArray[np.floating[Any]], *, k: int
) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]], NDArray[np.float64]]:
    """Gives the lists, the vectors and the lengths of the vectors, none of them 0."""
    top = lists_at_k(recommended, k=k)
    vectors = np.asarray(item_vectors)
    if vectors.ndim != 2:
        raise ValueError(f"item_vectors: shape {vectors.shape} is not (n_items, D); give one vector per item")
    check_items(top, n_items=len(vectors), where="item_vectors")
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    bad = ~(np.isfinite(norms) & (norms > 0))
    if bad.any():
        raise ValueError(
            f"item_vectors: the vector of item {int(np.argmax(bad))} is zero or not finite "
            f"({int(bad.sum())} such items); a cosine needs finite vectors that are not zero"
        )
    return top, vectors, norms


def _steps(rows: NDArray[np.int64], *, k: int) -> Iterator[NDArray[np.int64]]:
    """Cuts the rows into parts whose vectors fit into memory together."""
    step = max(1, _SLOTS_PER_STEP // k)
    return (rows[start : start + step] for start in range(0, len(rows), step))
