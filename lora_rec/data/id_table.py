"""Finds ids among many known ones, as numbers.

The table is made once, where `pyarrow.compute.index_in` hashes all known ids for every batch: with a million
of them 54 nanoseconds a row instead of 260.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ROWS_AT_ONCE = 1 << 16
"""Hashed at a time: their bytes stay in the processor's cache."""
CELLS_AT_ONCE = 1 << 22
"""Ids times the longest of them, padded at a time, but for one that is longer alone."""
MOST_SALTS = 8
"""Tried before equal hashes are taken for equal ids: of a million ids two share one hash in 10^7 tries."""
_Hashes = NDArray[np.uint64]


def padded_bytes(ids: pa.Array, *, most: int | None = None, whole_words: bool = False) -> NDArray[np.uint8]:
    """Gives the UTF-8 bytes of large strings as one table (n, W), with zeros behind the shorter ones.

    Args:
        ids: without nulls.
        most: bytes to take of each; all when left out.
        whole_words: make W a multiple of 8.
    """
    n = len(ids)
    offsets = np.frombuffer(ids.buffers()[1], np.int64, count=n + 1, offset=8 * ids.offset)
    data = np.frombuffer(ids.buffers()[2] or b"", np.uint8)
    lengths = np.diff(offsets)
    if most is not None:
        lengths = np.minimum(lengths, most)
    longest = int(lengths.max(initial=1))
    table = np.zeros((n, -(-longest // 8) * 8 if whole_words else longest), np.uint8)
    if n and (np.diff(offsets) == longest).all():  # ids of one length lie one behind the other
        table[:, :longest] = data[offsets[0] : offsets[-1]].reshape(n, longest)
    else:
        n_rows = max(1, CELLS_AT_ONCE // longest)  # their places take eight times the memory of the bytes
        for rows in (slice(start, start + n_rows) for start in range(0, n, n_rows)):
            there = np.arange(longest) < lengths[rows, None]
            table[rows, :longest][there] = data[(offsets[:-1][rows, None] + np.arange(longest))[there]]
    return table


def hash_ids(ids: pa.Array, *, salt: int = 0) -> _Hashes:
    r"""Gives 64 bits for each id, int64 or large strings.

    >>> hashes = hash_ids(pa.array(["a", "b", "a", "a\0"], pa.large_string()))
    >>> hashes[0] == hashes[2], len(set(hashes.tolist()))
    (np.True_, 3)
    """
    if pa.types.is_integer(ids.type):
        return _mix(ids.to_numpy().view(np.uint64) ^ _constant(salt))
    result = np.empty(len(ids), np.uint64)
    for start in range(0, len(ids), ROWS_AT_ONCE):
        part = ids.slice(start, ROWS_AT_ONCE)
        result[start : start + len(part)] = _hash_texts(part, salt)
    return result


def _hash_texts(ids: pa.Array, salt: int) -> _Hashes:
    offsets = np.frombuffer(ids.buffers()[1], np.int64, count=len(ids) + 1, offset=8 * ids.offset)
    lengths = np.diff(offsets)
    if len(ids) > 1 and len(ids) * int(lengths.max()) > CELLS_AT_ONCE:  # one long id would pad all others
        half = len(ids) // 2
        return np.concatenate([_hash_texts(part, salt) for part in (ids.slice(0, half), ids.slice(half))])
    state = _mix(lengths.view(np.uint64) ^ _constant(salt))
    shortest = int(lengths.min())
    for place, word in enumerate(padded_bytes(ids, whole_words=True).view("<u8").T):
        mixed = _mix(state ^ word)
        # Zeros behind an id do not count: how many there are depends on the ids around it.
        state = mixed if 8 * place < shortest else np.where(8 * place < lengths, mixed, state)
    return state


def _constant(salt: int) -> np.uint64:
    return np.uint64((salt + 1) * 0x9E3779B97F4A7C15 % 2**64)


def _mix(x: _Hashes) -> _Hashes:
    """Spreads every bit over all (splitmix64; Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class IdTable:
    """A hash table in two arrays, 16 to 24 bytes an id; the ids themselves are not kept.

    An unknown id is taken for a known one if 64 bits of both agree: with a million known ids, one in
    10^13 unknown ones.
    """

    def __init__(self, known: pa.Array) -> None:
        """Takes ids, each once, int64 or large strings.

        Raises:
            ValueError: an id is there twice.
        """
        self._salt = 0
        self._hashes = hash_ids(known)
        while len(np.unique(self._hashes)) < len(known):
            if self._salt == MOST_SALTS:
                raise ValueError("known: an id is there twice")
            self._salt += 1
            self._hashes = hash_ids(known, salt=self._salt)
        self._slots = np.full(1 << max(2 * len(known), 2).bit_length(), -1, np.int32)
        self._mask = np.uint64(len(self._slots) - 1)
        waiting = np.arange(len(known), dtype=np.int32)
        places = (self._hashes & self._mask).astype(np.int64)
        while len(waiting):
            free = self._slots[places] < 0
            self._slots[places[free]] = waiting[free]  # of several for one place the last stays
            left = self._slots[places] != waiting
            waiting, places = waiting[left], (places[left] + 1) & int(self._mask)

    def find(self, ids: pa.Array) -> NDArray[np.int32]:
        """Gives the number of each id, -1 where it is unknown; ids are of the type of the known ones."""
        hashes = hash_ids(ids, salt=self._salt)
        places = (hashes & self._mask).astype(np.int64)
        result = self._slots[places]
        wrong = np.flatnonzero((result >= 0) & (self._hashes[result] != hashes))
        while len(wrong):
            places[wrong] = (places[wrong] + 1) & int(self._mask)
            found = self._slots[places[wrong]]
            result[wrong] = found
            wrong = wrong[(found >= 0) & (self._hashes[found] != hashes[wrong])]
        return result
