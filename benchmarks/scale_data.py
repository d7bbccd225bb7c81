"""Made-up items and interactions of any number, written as Parquet in parts and never whole in memory.

Items belong to topics. Within a topic the item of rank r is taken with a weight of (r + 3)^-0.95 (Zipf and
Mandelbrot), so the head is many items and the tail falls as in published logs; topics are of unequal weight.
A user has three topics, by a hash of the id, and takes from others in a fifth of the cases; a few users take
much. Everything is drawn from formulas, not from tables of items or users, so a row costs the same at any
size. Titles are words of the topic and common words, out of a made-up vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

N_TOPICS, WORDS_OF_TOPIC, COMMON_WORDS = 100, 60, 2000
PER_ITEM, PER_USER = 100, 50
"""Interactions of an item and of a user, in the mean."""
EXPONENT, SHIFT = 0.95, 3.0
ROWS_AT_ONCE, ROWS_PER_FILE = 1 << 19, 1 << 23
ITEMS_AT_ONCE = 1 << 16
_Ints = NDArray[np.int64]


def make_words() -> list[str]:
    """Gives the vocabulary: the words of each topic, then the common ones."""
    parts = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ar", "en", "il", "on")]
    words = [first + second for first in parts for second in parts]
    generator = np.random.default_rng(0)
    n_words = N_TOPICS * WORDS_OF_TOPIC + COMMON_WORDS
    return [words[i] for i in generator.permutation(len(words))[:n_words]]


def topic_of(items: _Ints) -> _Ints:
    """Gives the topics of items by number."""
    return items % N_TOPICS


def _scramble(values: _Ints, n: int) -> _Ints:
    """Puts numbers below n, which 7,919 does not divide, into another order, so that ids tell nothing."""
    return (values * 7919 + 12345) % n


def _hash(values: _Ints, salt: int) -> NDArray[np.uint64]:
    """Gives 64 bits that look random (splitmix64, Steele et al. 2014)."""
    x = values.astype(np.uint64) + np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw_interactions(n_items: int, start: int, count: int, *, seed: int = 0) -> dict[str, _Ints]:
    """Gives rows of the log: numbers of users and items, and seconds, which rise but for some disorder."""
    generator = np.random.default_rng([seed, start])
    n_users = n_items * PER_ITEM // PER_USER
    users = (n_users * generator.random(count) ** 1.5).astype(np.int64)
    own = generator.random(count) < 0.8
    slot = np.searchsorted([0.5, 0.8], generator.random(count))
    tastes = np.zeros(count, np.int64)
    for place in range(3):
        rows = slot == place
        tastes[rows] = (_hash(users[rows], place + 1) % np.uint64(N_TOPICS)).astype(np.int64)
    others = (N_TOPICS * generator.random(count) ** 2).astype(np.int64)
    topics = np.where(own, tastes, others)
    size = n_items // N_TOPICS
    power = 1 - EXPONENT
    low, high = SHIFT**power, (SHIFT + size) ** power
    ranks = (low + (high - low) * generator.random(count)) ** (1 / power) - SHIFT
    items = N_TOPICS * np.minimum(ranks.astype(np.int64), size - 1) + topics
    seconds = 1_600_000_000 + (start + np.arange(count)) // PER_ITEM + generator.integers(-50, 50, count)
    return {"user": _scramble(users, n_users), "item": items, "time": seconds}


def item_ids(items: _Ints, n_items: int) -> pa.Array:
    """Gives ids like `i00001234`, whose order is not that of popularity."""
    digits = pc.utf8_lpad(pa.array(_scramble(items, n_items)).cast(pa.string()), 8, "0")
    return pc.binary_join_element_wise("i", digits, "")


def write_interactions(n_items: int, folder: Path, *, seed: int = 0) -> int:
    """Writes 100 interactions an item, and gives how many that is."""
    folder.mkdir(parents=True)
    total = n_items * PER_ITEM
    for start_of_file in range(0, total, ROWS_PER_FILE):
        writer = None
        for start in _starts(start_of_file, min(start_of_file + ROWS_PER_FILE, total), ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, total - start)
            rows = draw_interactions(n_items, start, count, seed=seed)
            table = pa.table(
                {
                    "user_id": rows["user"],
                    "item_id": item_ids(rows["item"], n_items),
                    "timestamp": rows["time"],
                }
            )
            file = folder / f"part-{start_of_file // ROWS_PER_FILE:05d}.parquet"
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
    return total


def _starts(start: int, stop: int, step: int) -> Iterator[int]:
    return iter(range(start, stop, step))


def write_items(n_items: int, file: Path) -> None:
    """Writes ids, titles and categories."""
    words = pa.array(make_words())
    schema = pa.schema({"item_id": pa.string(), "title": pa.string(), "category": pa.string()})
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, n_items, ITEMS_AT_ONCE):
            items = np.arange(start, min(start + ITEMS_AT_ONCE, n_items))
            generator = np.random.default_rng([1, start])
            own = topic_of(items)[:, None] * WORDS_OF_TOPIC
            # Squares prefer the first words, so that near items share them.
            of_topic = own + (WORDS_OF_TOPIC * generator.random((len(items), 3)) ** 2).astype(np.int64)
            first_common = N_TOPICS * WORDS_OF_TOPIC
            common = first_common + (COMMON_WORDS * generator.random((len(items), 3)) ** 2).astype(np.int64)
            chosen = np.concatenate([of_topic, common], axis=1)
            columns = [words.take(pa.array(column)) for column in chosen.T]
            titles = pc.binary_join_element_wise(*columns, " ")
            categories = words.take(pa.array(own[:, 0]))
            ids = item_ids(items, n_items)
            writer.write_table(pa.table([ids, titles, categories], schema=schema))


def popularity(n_items: int, n_rows: int) -> dict[str, float]:
    """Gives what the curve of a sample looks like: shares of the first item, percent and tenth of items."""
    rows = draw_interactions(n_items, 0, n_rows)
    counts = np.sort(np.bincount(rows["item"], minlength=n_items))[::-1]
    shares = np.cumsum(counts) / counts.sum()
    return {
        "first": float(shares[0]),
        "percent": float(shares[max(n_items // 100 - 1, 0)]),
        "tenth": float(shares[n_items // 10 - 1]),
    }
