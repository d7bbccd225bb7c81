"""Times re-ranking on made-up data and writes benchmarks/results/rerank_speed.json.

1,000 candidates to a list of 50, vectors of width 384 out of a catalogue of 10,000, one core. One user at a
time, the same user by pyversity right after, then many users in one call. `value` is the median over users,
`low` and `high` the quartiles; for many users it is the time of the call over its users. `ms` is what a clock
shows, `cpu_ms` what the process used: on a machine with other work the first is longer.

OMP_NUM_THREADS=1 python benchmarks/rerank_speed.py
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported

import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import product
from typing import Any

import numpy as np
from pyversity import diversify
from rows import header_of, row, write_rows

from lora_rec.rank.rerank import rerank_lists
from lora_rec.schema import CATEGORY_STRATEGIES, VECTOR_STRATEGIES

NAME = "rerank_speed"
N_ITEMS, WIDTH, N_CANDIDATES, K = 10_000, 384, 1_000, 50
N_CATEGORIES = 20
SLOW = "cover"  # by design, here and in pyversity: fewer users, and no call for many
DIVERSITIES = (0.5, 0.9)
CLOCKS = ("ms", "cpu_ms")


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Gives milliseconds by the clock and of the process."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def quartiles(case: str, system: str, metric: str, values: Any, *, unit: str = "ms") -> dict[str, Any]:
    """Gives a row of the median and the quartiles, all of one run."""
    low, middle, high = (float(part) for part in np.percentile(values, (25, 50, 75)))
    return row(NAME, case, system, metric, [low, high], value=middle, unit=unit) | {"n": 1}


def measure(strategy: str, *, diversity: float, users: int, many: int) -> list[dict[str, Any]]:
    """Times one strategy."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(N_ITEMS, WIDTH)).astype(np.float32)
    n_users = max(users, many)
    candidates = np.stack([generator.permutation(N_ITEMS)[:N_CANDIDATES] for _ in range(n_users)])
    scores = -np.sort(-generator.normal(size=candidates.shape).astype(np.float32), axis=1)
    weights = np.eye(N_CATEGORIES, dtype=np.float32)[generator.integers(0, N_CATEGORIES, N_ITEMS)]
    mix = generator.dirichlet(np.ones(N_CATEGORIES), size=n_users).astype(np.float32)

    def ours(rows: slice) -> Callable[[], Any]:
        return lambda: rerank_lists(
            candidates[rows],
            scores[rows],
            vectors,
            k=K,
            diversity=diversity,
            strategy=strategy,
            category_weights=weights,
            history_mix=mix[rows],
        )

    def theirs(user: int) -> Callable[[], Any]:
        return lambda: diversify(
            vectors[candidates[user]], scores[user], K, strategy=strategy, diversity=diversity
        )

    by_category = strategy in CATEGORY_STRATEGIES
    ours(slice(0, 2))()  # the first call loads code
    own, other = [], []
    for user in range(users):
        own.append(timed(ours(slice(user, user + 1))))
        if not by_category:
            other.append(timed(theirs(user)))
    case = f"{strategy}, diversity {diversity:g}, {N_CANDIDATES:,} to {K}"
    alone, peer = np.array(own), np.array(other)
    rows = [quartiles(case, "lora_rec", metric, alone[:, i]) for i, metric in enumerate(CLOCKS)]
    if not by_category:
        rows += [
            quartiles(case, "pyversity", metric, peer[:, i]) for i, metric in enumerate(("ms", "cpu_ms"))
        ]
        rows.append(quartiles(case, "lora_rec", "cpu_over_pyversity", alone[:, 1] / peer[:, 1], unit=""))
    if many:
        together = np.array(timed(ours(slice(0, many)))) / many
        system = f"lora_rec, {many:,} users at once"
        rows += [
            row(NAME, case, system, name, [together[i]], unit="ms") for i, name in enumerate(("ms", "cpu_ms"))
        ]
    return rows


def main() -> None:
    """Times every strategy and writes the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=60, help="timed one by one (default: %(default)s)")
    parser.add_argument("--many", type=int, default=10_000, help="in one call (default: %(default)s)")
    arguments = parser.parse_args()
    rows = []
    for strategy, diversity in product((*VECTOR_STRATEGIES, *CATEGORY_STRATEGIES), DIVERSITIES):
        users = arguments.users if strategy != SLOW else 5
        many = arguments.many if strategy != SLOW and diversity == DIVERSITIES[0] else 0
        for entry in (found := measure(strategy, diversity=diversity, users=users, many=many)):
            print(f"{entry['case']}  {entry['system']}  {entry['metric']}  {entry['value']:.2f}", flush=True)
        rows += found
    header = header_of(
        NAME, f"python benchmarks/rerank_speed.py --users {arguments.users} --many {arguments.many}"
    )
    header["versions"]["pyversity"] = version("pyversity")
    write_rows(NAME, header, rows)


if __name__ == "__main__":
    main()
