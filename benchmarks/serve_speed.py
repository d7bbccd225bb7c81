"""Times one list of ten from a bundle of made-up numbers and writes benchmarks/results/serve_speed.json.

10,000 and 100,000 items, histories of 50, one thread, one user a call. Beside it, in turns of 20 calls: a
dense EASE in numpy (10,000 items alone; ten times as many would take 40 GB), and MiniLM reading the last ten
items of that history as text, which is what a list would cost at least with the language model in its path.
`value` is the median over users, `low` and `high` the quartiles; `ms` is what a clock shows, `cpu_ms` what
the process used: on a machine with other work the first is longer.

python benchmarks/serve_speed.py
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rows import header_of, row, write_rows

from lora_rec.rank.head import RankingHead
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.ranker import Recommender
from lora_rec.rank.sequence import SequencePart
from lora_rec.rank.spaces import ItemSpaces, popularity_of
from lora_rec.recipe import HeadSection
from lora_rec.schema import Manifest, RankingManifest, TextManifest

NAME = "serve_speed"
SIZES = (10_000, 100_000)
LENGTH, K, USERS_AT_ONCE = 50, 10, 256
A_TURN = 20  # calls of one system, whose numbers then lie in the processor's cache, as on a server
TEXT_WIDTH, WIDTH = 384, 128
EXACT_ITEMS = 10_000
OURS, PEERS = "lora_rec", ("ease", "minilm")
Call = Callable[[NDArray[np.int64]], object]
_Array = NDArray[np.float32]


def make_recommender(n_items: int) -> Recommender:
    """Makes what `lora_rec.load` gives, with random numbers in the shapes of a run's defaults."""
    from lora_rec.train.sequence import SequenceHead

    generator = np.random.default_rng(0)

    def unit(width: int) -> _Array:
        values = generator.standard_normal((n_items, width), dtype=np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    section, texts = HeadSection(), unit(TEXT_WIDTH)
    counts = generator.zipf(1.5, n_items).clip(max=10_000).astype(np.int64)
    module = SequenceHead(
        texts,
        counts,
        user_width=WIDTH,
        width=section.width,
        n_blocks=section.n_blocks,
        n_heads=section.n_heads,
        history_length=section.history_length,
        dropout=0.0,
        id_dropout=0.0,
        min_id_count=section.min_id_count,
        temperature=section.temperature,
    )
    neighbours = generator.integers(0, n_items, (n_items, section.n_neighbours)).astype(np.int32)
    neighbours.sort(axis=1)
    weights = generator.standard_normal(neighbours.shape, dtype=np.float32)
    head = RankingHead(
        ItemItemModel(neighbours, weights, decay=0.9),
        SequencePart(**module.to_arrays()),
        sequence_weight=1.0,
        recent=counts.astype(np.float32),
        recent_weight=0.1,
    )
    ids = tuple(str(item) for item in range(n_items))
    manifest = Manifest(
        format_version=2,
        width=WIDTH,
        n_items=n_items,
        user_tower=None,
        item_tower=None,
        text=TextManifest("{title}", "{title}", LENGTH, newest_first=False),
        ranking=RankingManifest(strategy="mmr", n_candidates=100),
        versions={},
        files={},
    )
    spaces = ItemSpaces(texts, unit(64), popularity_of(counts))
    fields = {"title": [f"item {item}" for item in ids]}
    return Recommender(manifest, ids, fields, unit(WIDTH), spaces, head, {})


def read_by_minilm() -> Callable[[str], object]:
    """Gives a call that reads one text with MiniLM, on one thread."""
    import torch
    from quality_texts import RULER
    from transformers import AutoModel, AutoTokenizer

    from lora_rec.towers.source import resolve_backbone

    torch.set_num_threads(1)
    folder = resolve_backbone(f"package:{RULER}").folder
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def read(text: str) -> object:
        with torch.inference_mode():
            return model(**tokenizer(text, truncation=True, max_length=256, return_tensors="pt"))

    return read


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Gives milliseconds by the clock and of the process."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def measure(n_items: int, *, users: int, read: Callable[[str], object]) -> list[dict[str, Any]]:
    """Times every system on the same users, one after the other."""
    rec, generator = make_recommender(n_items), np.random.default_rng(1)
    histories = [generator.choice(n_items, LENGTH, replace=False) for _ in range(users)]
    dense = None
    if n_items <= EXACT_ITEMS:
        dense = generator.standard_normal((n_items, n_items), dtype=np.float32)
    many = {str(user): list(map(str, history)) for user, history in enumerate(histories[:USERS_AT_ONCE])}

    def by_ease(history: NDArray[np.int64]) -> object:
        assert dense is not None
        scores = dense[history].sum(axis=0)
        scores[history] = -np.inf
        best = np.argpartition(-scores, K)[:K]
        return best[np.argsort(-scores[best])]

    def recommend(history: NDArray[np.int64], **settings: float) -> object:
        return rec.recommend(list(map(str, history)), k=K, **settings)  # type: ignore[arg-type]

    calls: dict[str, Call] = {
        OURS: recommend,
        f"{OURS}, re-ranked": lambda history: recommend(history, diversity=0.3),
        "minilm": lambda history: read("; ".join(f"item {item} of the long night" for item in history[-10:])),
    }
    if dense is not None:
        calls["ease"] = by_ease
    times: dict[str, list[tuple[float, float]]] = {system: [] for system in calls}
    for start in range(0, users, A_TURN):
        for system, call in calls.items():
            for history in histories[start : start + A_TURN]:
                times[system].append(timed(lambda call=call, history=history: call(history)))
    wall, cpu = timed(lambda: rec.recommend_users(many, k=K))
    case = f"serve-{n_items // 1000}k"
    rows = _rows_of(
        case, {system: np.array(found)[1:] for system, found in times.items()}
    )  # the first loads code
    name = f"{OURS}, {len(many)} users at once"
    together = (("ms", wall), ("cpu_ms", cpu))
    return rows + [
        row(NAME, case, name, metric, [value / len(many)], unit="ms") for metric, value in together
    ]


def _rows_of(case: str, values: dict[str, _Array]) -> list[dict[str, Any]]:
    """Gives the rows of the times (users, 2) of each system."""
    rows = [
        _quartiles(case, system, metric, found[:, place], unit="ms")
        for system, found in values.items()
        for place, metric in enumerate(("ms", "cpu_ms"))
    ]
    for system in PEERS:
        if system in values:
            ratio = values[system][:, 1] / values[OURS][:, 1]
            rows.append(_quartiles(case, system, f"cpu_over_{OURS}", ratio, unit=""))
    return rows


def _quartiles(case: str, system: str, metric: str, values: _Array, *, unit: str) -> dict[str, Any]:
    low, middle, high = (float(part) for part in np.percentile(values, (25, 50, 75)))
    return row(NAME, case, system, metric, [low, high], value=middle, unit=unit) | {"n": 1}


def main() -> None:
    """Times both sizes and writes the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=300, help="timed one by one (default: %(default)s)")
    arguments = parser.parse_args()
    read, rows = read_by_minilm(), []
    for n_items in SIZES:
        for entry in (found := measure(n_items, users=arguments.users, read=read)):
            print(f"{entry['case']}  {entry['system']}  {entry['metric']}  {entry['value']:.3f}", flush=True)
        rows += found
    write_rows(NAME, header_of(NAME, f"python benchmarks/serve_speed.py --users {arguments.users}"), rows)


if __name__ == "__main__":
    main()
