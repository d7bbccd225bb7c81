"""How fast lists are re-ranked: 1,000 candidates to 50 at width 384, one user and many, beside pyversity.

Run from the repository's root: OMP_NUM_THREADS=1 python benchmarks/rerank_speed.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from pyversity import diversify

from lora_rec.rank.rerank import rerank_lists

N_CANDIDATES, K, WIDTH, N_ITEMS, N_USERS, ROUNDS = 1000, 50, 384, 20_000, 64, 5


def main() -> None:
    """Prints milliseconds of processor time a user, best of five rounds: what else runs counts less."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(N_ITEMS, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    candidates = np.stack([generator.permutation(N_ITEMS)[:N_CANDIDATES] for _ in range(N_USERS)])
    scores = -np.sort(-generator.random((N_USERS, N_CANDIDATES)), axis=1).astype(np.float32)
    settings = {"k": K, "diversity": 0.5}
    print(f"{'':6}{'pyversity':>12}{'one user':>12}{'many users':>12}{'ratio one':>12}{'ratio many':>12}")
    for strategy in ("mmr", "msd", "dpp"):

        def peer(strategy: str = strategy) -> None:
            for row, relevance in zip(candidates, scores, strict=True):
                diversify(vectors[row], relevance, K, strategy=strategy, diversity=0.5)

        def alone(strategy: str = strategy) -> None:
            for row in range(N_USERS):
                users = slice(row, row + 1)
                rerank_lists(candidates[users], scores[users], vectors, strategy=strategy, **settings)

        def together(strategy: str = strategy) -> None:
            rerank_lists(candidates, scores, vectors, strategy=strategy, **settings)

        times = np.array([_milliseconds(run) for run in (peer, alone, together)])
        print(f"{strategy:6}" + "".join(f"{t:12.2f}" for t in (*times, *(times[0] / times[1:]))))


def _milliseconds(run: Callable[[], None]) -> float:
    """Gives the time for each user."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return 1000 * best / N_USERS


if __name__ == "__main__":
    main()
