"""Search for one user among many item vectors, on one core, beside faiss, usearch and numpy.

    python benchmarks/search_speed.py

Made-up unit vectors of width 128 around many centres, as items are; users lie between two items. The 100 best
are asked for, alone and then re-ranked to 20 (mmr at .5). Systems take turns, query by query; `value` is the
median, `low` and `high` the quartiles. `lora_rec` searches its index, exactly and nearly; `lora_rec, no
index` is `rank.search.top_k`. That all exact lists are the same, but for rounding, is checked. `reading` is
one product of all vectors with the user's, which no search goes below that reads them.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported

import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rows import header_of, merge_rows, of_one_run, row, write_rows

from lora_rec.rank.index import ItemIndex, open_index
from lora_rec.rank.index_build import build_index
from lora_rec.rank.rerank import rerank_lists
from lora_rec.rank.search import top_k

NAME = "search_speed"
CASES = {"search-100k": 100_000, "search-1m": 1_000_000}
WIDTH, K, LIST = 128, 100, 20
RECALL = 0.98
WIDTHS = (32, 64, 128, 256, 512, 1024)
"""Items that a graph keeps in sight: the first with the wished recall is taken."""
PEERS = {"faiss_hnsw": ("faiss", "faiss-cpu"), "usearch": ("usearch", "usearch")}
"""Graphs to compare with: the module and the package of each."""
READING = "reading"
_Array = NDArray[np.float32]
Found = tuple[NDArray[np.int64], _Array]
Search = Callable[[_Array], Found]
"""From one user (1, D) to items (1, K) and scores (1, K)."""


def make_vectors(n_items: int, n_users: int, *, seed: int = 0) -> tuple[_Array, _Array]:
    """Gives unit vectors of items (N, D), a few hundred around each centre, and of users (U, D)."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(max(64, n_items // 300), WIDTH)).astype(np.float32)
    # Directions count less and less, as those of learned vectors do.
    centres *= (np.arange(1, WIDTH + 1) ** -0.35).astype(np.float32)
    items = centres[generator.integers(0, len(centres), n_items)]
    for start in range(0, n_items, 1 << 16):
        part = items[start : start + (1 << 16)]
        part += 0.15 * generator.normal(size=part.shape).astype(np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    pairs = generator.integers(0, n_items, (n_users, 2))
    users = items[pairs].sum(axis=1) + 0.03 * generator.normal(size=(n_users, WIDTH)).astype(np.float32)
    return items, users / np.linalg.norm(users, axis=1, keepdims=True)


def exact_searches(items: _Array, index: ItemIndex) -> dict[str, Search]:
    """Gives what finds the very best, and one reading of all vectors."""

    def by_argpartition(user: _Array) -> Found:
        scores = (user @ items.T)[0]
        best = np.argpartition(-scores, K)[:K]
        best = best[np.argsort(-scores[best])]
        return best[None], scores[None, best]

    import faiss

    flat = faiss.IndexFlatIP(WIDTH)
    flat.add(items)
    return {
        "lora_rec": lambda user: index.search(user, k=K, exact=True),
        "lora_rec, no index": lambda user: top_k(user, items, k=K),
        "numpy": by_argpartition,
        "faiss_flat": lambda user: flat.search(user, K)[::-1],
        READING: lambda user: (np.zeros((1, 0), np.int64), user @ items.T),
    }


def approximate_searches(
    items: _Array, queries: _Array, index: ItemIndex, peers: list[str]
) -> tuple[dict[str, Search], dict[str, float]]:
    """Gives what finds most of the best, and the seconds that each peer took to make."""
    found: dict[str, Search] = {"lora_rec": lambda user: index.search(user, k=K)}
    seconds: dict[str, float] = {}
    exact, _ = top_k(queries, items, k=K)
    makers = {"faiss_hnsw": make_faiss_graph, "usearch": make_usearch_graph}
    for name in peers:
        began = time.perf_counter()
        search, set_width = makers[name](items)
        seconds[name] = time.perf_counter() - began
        for width in WIDTHS:
            set_width(width)
            if recall_of(search, queries, exact) >= RECALL:
                break
        found[name] = search
    return found, seconds


def make_faiss_graph(items: _Array) -> tuple[Search, Callable[[int], None]]:
    """Gives a search in a graph with 16 links an item, and what sets how wide it looks."""
    import faiss

    graph = faiss.IndexHNSWFlat(WIDTH, 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 64
    graph.add(items)
    return lambda user: graph.search(user, K)[::-1], lambda n: setattr(graph.hnsw, "efSearch", n)


def make_usearch_graph(items: _Array) -> tuple[Search, Callable[[int], None]]:
    """Gives the same of usearch."""
    from usearch.index import Index

    graph = Index(ndim=WIDTH, metric="ip", dtype="f32", connectivity=16, expansion_add=64)
    graph.add(np.arange(len(items)), items, threads=1)

    def search(user: _Array) -> Found:
        matches = graph.search(user[0], K, threads=1)
        return matches.keys.astype(np.int64)[None], 1 - matches.distances[None]

    return search, lambda n: setattr(graph, "expansion_search", n)


def recall_of(search: Search, queries: _Array, exact: NDArray[np.int64]) -> float:
    """Gives the share of the exact lists that a search finds."""
    pairs = zip(queries, exact, strict=True)
    return float(np.mean([len(np.intersect1d(search(query[None])[0], best)) / K for query, best in pairs]))


def with_reranking(search: Search, items: _Array) -> Search:
    """Gives a search whose items are re-ranked to a shorter list."""

    def run(user: _Array) -> Found:
        found, scores = search(user)
        near = items[found[0]]  # of the candidates alone: the catalogue is not looked at again
        places = np.arange(len(near))[None]
        return rerank_lists(places, scores, near, k=LIST, diversity=0.5, strategy="mmr")

    return run


def time_in_turns(systems: dict[str, Search], users: _Array) -> dict[str, list[float]]:
    """Gives milliseconds of each system for each user."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    for user in users:
        for name, search in systems.items():
            began = time.perf_counter()
            search(user[None])
            times[name].append(1e3 * (time.perf_counter() - began))
    return times


def measure(case: str, *, n_users: int, peers: list[str]) -> list[dict[str, Any]]:
    """Gives the rows of one case."""
    items, users = make_vectors(CASES[case], n_users + 100)
    queries, users = users[:100], users[100:]  # by the first the width of a search is chosen
    exact, _ = top_k(users, items, k=K)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        build_index(folder, items, queries=queries, recall=RECALL)
        took = time.perf_counter() - began
        index = open_index(folder, items)
        approximate, seconds = approximate_searches(items, queries, index, peers)
        seconds = {"lora_rec": took} | seconds
        for kind, systems in (("exact", exact_searches(items, index)), ("approximate", approximate)):
            searches = {name: search for name, search in systems.items() if name != READING}
            if kind == "exact":
                shares = {name: recall_of(search, users, exact) for name, search in searches.items()}
                # Products of one user and of many round otherwise, so two nearly equal items may swap.
                assert min(shares.values()) > 0.999, f"other lists than those of top_k: {shares}"
            reranked = {(name, f"_to_{LIST}"): with_reranking(s, items) for name, s in searches.items()}
            plain = {(name, ""): search for name, search in systems.items()}
            for (name, suffix), times in time_in_turns(plain | reranked, users).items():  # type: ignore[arg-type]
                low, middle, high = (float(q) for q in np.percentile(times, (25, 50, 75)))
                metric = f"ms_{kind}{suffix}"
                rows.append(row(NAME, case, name, metric, [low, high], value=middle, unit="ms"))
            if kind == "approximate":
                rows += [
                    row(NAME, case, name, "recall", [recall_of(search, users, exact)])
                    for name, search in searches.items()
                ]
    rows += [row(NAME, case, name, "s_to_make", [value], unit="s") for name, value in seconds.items()]
    for line in rows:
        print(case, line["system"], line["metric"], f"{line['value']:.3f}", flush=True)
    return rows


def main() -> None:
    """Parses the command line and writes benchmarks/results/search_speed.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    installed = [name for name, (module, _) in PEERS.items() if find_spec(module) is not None]
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument(
        "--peers", nargs="*", choices=tuple(PEERS), default=installed, help="graphs to take in"
    )
    arguments = parser.parse_args()
    for name in sorted(set(PEERS) - set(arguments.peers)):
        print(f"without {name}: pip install {PEERS[name][1]} brings it in", flush=True)
    for case in arguments.cases:  # each is written when it is there: the graphs of a million take long
        rows = measure(case, n_users=arguments.users, peers=arguments.peers)
        header = header_of(NAME, "python benchmarks/search_speed.py")
        write_rows(NAME, header, merge_rows(NAME, of_one_run(rows)))


if __name__ == "__main__":
    main()
