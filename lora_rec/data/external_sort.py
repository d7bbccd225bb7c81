"""Sorts interactions that do not fit in memory by user, then time, then their order in the source.

Rows go into parts on disk, each of which fits in memory and holds a range of users; sorted one after the
other, the parts are the whole (distribution sort; Knuth, The Art of Computer Programming, vol. 3, 5.4.9).
The ranges are cut at evenly spaced users of a sample of rows, so that parts are of like size. A user's rows
are never parted: one user with more rows than fit in memory cannot be sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lora_rec.data.build import count_repeats
from lora_rec.data.id_table import padded_bytes

BYTES_PER_ROW = 160
"""What sorting takes of memory for a row of a part, at most; with numbers as ids it was 90 when measured."""
SAMPLED_PER_PART = 64
PREFIX = 64
"""Bytes of an id that decide its part."""


def keys_of(users: pa.Array) -> NDArray[Any]:
    """Gives keys that rise as users are numbered: by the length of the id, then by the id.

    >>> keys = keys_of(pa.array(["10", "9", "b", "é"], pa.large_string()))
    >>> np.argsort(keys).tolist()
    [1, 2, 3, 0]
    """
    if pa.types.is_integer(users.type):
        return users.to_numpy()  # without leading zeros, a longer number is a larger one
    prefixes = padded_bytes(users, most=PREFIX)
    keys = np.empty((len(users), prefixes.shape[1] + 2), np.uint8)
    letters = np.minimum(pc.utf8_length(users).to_numpy(), 0xFFFF).astype(">u2")
    keys[:, :2] = letters.view(np.uint8).reshape(-1, 2)
    keys[:, 2:] = prefixes
    return keys.view(f"S{keys.shape[1]}").ravel()


def cut_ranges(sample: Sequence[pa.Array]) -> NDArray[Any]:
    """Gives the keys at which a sample of users, `SAMPLED_PER_PART` for each part, is cut."""
    keys = np.sort(np.concatenate([keys_of(users) for users in sample]))
    return np.unique(keys[SAMPLED_PER_PART::SAMPLED_PER_PART])


class Spill:
    """The parts on disk while they are filled."""

    def __init__(self, folder: Path, cuts: NDArray[Any], schema: pa.Schema) -> None:
        """Makes a part for each range between the cuts.

        Args:
            folder: new or empty.
            cuts: what `cut_ranges` gave.
            schema: of the batches; the first column is `user`, int64 or large strings.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._cuts = cuts
        self.files = [folder / f"{part}.arrows" for part in range(len(cuts) + 1)]
        self._writers = [pa.ipc.new_stream(str(file), schema) for file in self.files]

    def add(self, batch: pa.RecordBatch) -> None:
        """Puts the rows of a batch into their parts, in their order."""
        part = np.searchsorted(self._cuts, keys_of(batch.column(0)), side="right").astype(np.uint16)
        if len(self._writers) > 1:
            batch = batch.take(pa.array(np.argsort(part, kind="stable")))
        start = 0
        for writer, count in zip(self._writers, np.bincount(part, minlength=len(self.files)), strict=True):
            if count:
                writer.write_batch(batch.slice(start, count))
            start += count

    def close(self) -> None:
        """Ends the parts."""
        for writer in self._writers:
            writer.close()


@dataclass(frozen=True, eq=False)
class SortedPart:
    """The interactions of a range of users."""

    user_ids: pa.Array
    """(U,), large strings, in their order."""
    counts: NDArray[np.int64]
    """(U,), interactions of each."""
    columns: dict[str, NDArray[Any]]
    """`item`, and `time` and `rating` where there are some; each (E,)."""
    n_moved: int
    """Interactions that were not in the order of their times."""
    n_repeats: int
    """Interactions that repeat a user, an item and a time."""


def sort_part(file: Path) -> SortedPart:
    """Sorts one part."""
    with pa.OSFile(str(file)) as source:
        table = pa.ipc.open_stream(source).read_all().combine_chunks()
    users, user_ids = _rank_users(table.column(0))
    order = _stable_order(users)
    users = users[order]
    columns = {name: table.column(name).to_numpy()[order] for name in table.column_names[1:]}
    del table, order
    n_moved = _sort_by_time(users, columns)
    columns.pop("fraction", None)
    return SortedPart(
        user_ids,
        np.bincount(users, minlength=len(user_ids)),
        columns,
        n_moved,
        _count_repeats(users, columns),
    )


def _stable_order(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Gives the order of numbers below 2^32, by their halves: numpy counts these, and compares whole ones.

    >>> _stable_order(np.array([70000, 1, 70000, 0])).tolist()
    [3, 1, 0, 2]
    """
    order = np.argsort(numbers.astype(np.uint16), kind="stable")  # their lower halves
    if len(numbers) and numbers.max() > 0xFFFF:
        upper = (numbers >> 16).astype(np.uint16)
        order = order[np.argsort(upper[order], kind="stable")]
    return order


def _sort_by_time(users: NDArray[np.int64], columns: dict[str, NDArray[Any]]) -> int:
    """Brings the rows of each user to the order of their times, and says how many were not in it.

    Most logs are written in that order, so only the users are sorted who have a row before an earlier one.

    Args:
        users: (E,), rising.
        columns: `time` and `fraction`, where there are some, and all else; changed in place.
    """
    if "time" not in columns:
        return 0
    keys = [columns[name] for name in ("fraction", "time") if name in columns]
    steps = [np.diff(key) for key in reversed(keys)]
    back = steps[0] < 0
    for step in steps[1:]:
        back |= (steps[0] == 0) & (step < 0)
    back &= users[1:] == users[:-1]
    if not back.any():
        return 0
    mixed = np.zeros(int(users[-1]) + 1, dtype=bool)
    mixed[users[1:][back]] = True
    rows = np.flatnonzero(mixed[users])
    order = np.lexsort([*(key[rows] for key in keys), users[rows]])  # ties stay in the order of the rows
    for values in columns.values():
        values[rows] = values[rows[order]]
    return int((order != np.arange(len(rows))).sum())


def _rank_users(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.Array]:
    """Gives each row's user as a number, and the ids in the order of the numbers."""
    encoded = pc.dictionary_encode(column).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], column.type).dictionary_encode()
    ids = encoded.dictionary
    if pa.types.is_integer(ids.type):
        order = np.argsort(ids.to_numpy())
    else:
        lengths = pa.table({"length": pc.utf8_length(ids), "id": ids})
        order = pc.sort_indices(lengths, [("length", "ascending"), ("id", "ascending")]).to_numpy()
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place[encoded.indices.to_numpy()], ids.take(pa.array(order)).cast(pa.large_string())


def _count_repeats(users: NDArray[np.int64], columns: dict[str, NDArray[Any]]) -> int:
    """Counts repeats among the rows whose neighbour has the same user and time; no others can be any."""
    if "time" not in columns or len(users) < 2:
        return 0
    same = (np.diff(users) == 0) & (np.diff(columns["time"]) == 0)
    rows = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    return count_repeats(users[rows], columns["item"][rows], columns["time"][rows]) if len(rows) else 0
