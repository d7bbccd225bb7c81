import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lora_rec.data import id_table
from lora_rec.data.id_table import IdTable, padded_bytes

GENERATOR = np.random.default_rng(0)
KNOWN = {
    "numbers": pa.array(GENERATOR.permutation(90_000)[:70_000] - 100),
    "one length": pa.array([f"i{i:06d}" for i in GENERATOR.permutation(70_000)], pa.large_string()),
    "any length": pa.array([f"{i:x}é" * (i % 5 + 1) for i in range(70_000)], pa.large_string()),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_it_finds_what_pyarrow_finds(kind):
    known = KNOWN[kind].slice(5, 60_000)
    asked = KNOWN[kind].take(pa.array(GENERATOR.integers(0, 70_000, 100_000))).slice(3)
    expected = pc.fill_null(pc.index_in(asked, value_set=known), -1).to_numpy()
    assert (expected < 0).any()
    np.testing.assert_array_equal(IdTable(known).find(asked), expected)


def test_one_id_and_none():
    table = IdTable(pa.array(["a"], pa.large_string()))
    assert table.find(pa.array(["", "a", "aa", "a\0"], pa.large_string())).tolist() == [-1, 0, -1, -1]
    assert table.find(pa.array([], pa.large_string())).tolist() == []


def test_known_ids_of_one_hash_are_hashed_anew(monkeypatch):
    original, salts = id_table.hash_ids, []

    def all_alike_at_first(ids, *, salt=0):
        salts.append(salt)
        return original(ids, salt=salt) if salt > 1 else np.zeros(len(ids), np.uint64)

    monkeypatch.setattr(id_table, "hash_ids", all_alike_at_first)
    known = pa.array(["a", "b", "c"], pa.large_string())
    assert IdTable(known).find(known).tolist() == [0, 1, 2]
    assert salts == [0, 1, 2, 2]


def test_an_id_that_is_there_twice():
    with pytest.raises(ValueError, match="an id is there twice"):
        IdTable(pa.array(["a", "b", "a"], pa.large_string()))


def test_one_long_id_does_not_pad_all_others():
    ids = pa.array([f"i{i}" for i in range(20_000)] + ["x" * 20_000], pa.large_string())
    tracemalloc.start()
    found = IdTable(ids).find(ids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, np.arange(len(ids)))
    assert peak < 100e6  # padded together they are 400 MB, and their places 3.2 GB


def test_padded_bytes():
    ids = pa.array(["x", "abc", "é", ""], pa.large_string()).slice(1)
    assert [bytes(row) for row in padded_bytes(ids)] == [b"abc", "é".encode() + b"\0", b"\0\0\0"]
    assert [bytes(row) for row in padded_bytes(ids, most=2)] == [b"ab", "é".encode(), b"\0\0"]
    assert padded_bytes(ids, whole_words=True).shape == (3, 8)
