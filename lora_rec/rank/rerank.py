"""Chooses a list for relevance and diversity together, through pyversity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyversity import diversify


def rerank(
    items: NDArray[np.int64],
    scores: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    *,
    k: int,
    diversity: float,
    strategy: str = "mmr",
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Chooses k of the candidates.

    Args:
        items: (N,), candidates by relevance, best first; -1 for empty slots at the end.
        scores: (N,), their relevance; scaled to 0..1 over the candidates before it is traded off.
        item_vectors: (n_items, D), whose cosine says how alike two items are.
        k: list length.
        diversity: 0 keeps the relevance order exactly, 1 is the most diverse.
        strategy: `mmr`, `msd`, `dpp` or `ssd`.

    Returns:
        Items (K,) in list order and their relevance (K,); K = min(k, candidates).

    Raises:
        ValueError: diversity is outside 0..1, or a vector of a candidate is not finite.
    """
    if not 0 <= diversity <= 1:
        raise ValueError(f"diversity: {diversity} is not in [0, 1]")
    present = items >= 0
    items, scores = items[present], scores[present]
    if diversity == 0 or len(items) <= 1:
        return items[:k], scores[:k]
    vectors = np.asarray(item_vectors[items], dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError("item_vectors: a candidate's vector is not finite")
    spread = scores.max() - scores.min()
    relevance = (scores - scores.min()) / spread if spread > 0 else np.ones_like(scores)
    chosen = diversify(vectors, relevance, min(k, len(items)), strategy=strategy, diversity=diversity).indices
    return items[chosen], scores[chosen]


def rerank_lists(
    candidates: NDArray[np.int64],
    scores: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    *,
    k: int,
    diversity: float,
    strategy: str,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Re-ranks candidates (U, N) of many users into lists (U, k); see `rerank`."""
    width = min(k, candidates.shape[1])
    items = np.full((len(candidates), width), -1, dtype=np.int64)
    kept = np.full((len(candidates), width), -np.inf, dtype=np.float32)
    for row in range(len(candidates)):
        chosen, relevance = rerank(
            candidates[row], scores[row], item_vectors, k=k, diversity=diversity, strategy=strategy
        )
        items[row, : len(chosen)], kept[row, : len(chosen)] = chosen, relevance
    return items, kept
