"""From tables larger than memory to a data set on disk, the same as `sources.load_dataset` gives."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lora_rec.bundle import check_output, write_folder
from lora_rec.data import stored
from lora_rec.data.columns import UNITS, read_numbers
from lora_rec.data.external_sort import BYTES_PER_ROW, SAMPLED_PER_PART, Spill, cut_ranges, sort_part
from lora_rec.data.id_table import IdTable
from lora_rec.data.part_columns import IdColumn, TimeColumn, cells_of, look_at_numbers
from lora_rec.data.parts import (
    Findings,
    Part,
    Progress,
    batches_of,
    check_columns,
    find_parts,
    without_progress,
)
from lora_rec.data.store_items import ItemTable, look_at_items, write_items
from lora_rec.data.stored import ArrayWriter, StoredDataset, open_stored
from lora_rec.data.validate import DataProblem, raise_problems
from lora_rec.errors import DataError

if TYPE_CHECKING:
    from lora_rec.data.parts import BigSource

LEAST_MEMORY_MB = 64
MOST_PARTS = 900
"""Files that are open at once; 1,024 are usually allowed."""
ROWS_PER_ITEM = 16
"""An item with its texts takes as much memory as so many interactions."""
BATCHES_IN_MEMORY = 4
"""A batch, as it is read, cut and written, takes about as much memory as a part of so many times its rows."""


def store_dataset(
    interactions: BigSource,
    items: BigSource,
    output: str | Path,
    *,
    user_column: str = "user_id",
    item_column: str = "item_id",
    time_column: str | None = "timestamp",
    rating_column: str | None = None,
    item_id_column: str | None = None,
    text_columns: Sequence[str] | None = None,
    min_rating: float | None = None,
    memory_mb: int = 512,
    progress: Progress = without_progress,
) -> StoredDataset:
    """Reads two tables of any size, checks them, and writes histories and item texts to be memory-mapped.

    Numbers, order and texts are those of `sources.load_dataset`; of several files the rows follow each other.
    The tables are gone through twice: what is wrong is found before anything is sorted. Needs disk for the
    interactions twice. In memory are the item ids (about 100 bytes an item) and what `memory_mb` allows.

    Args:
        interactions: one row per interaction; see `parts.find_parts` for what may be given.
        items: one row per item.
        output: a folder that is not there yet, or holds an older data set, which is replaced.
        user_column: see `load_dataset`, as for the six that follow.
        item_column: column of item ids in `interactions`.
        time_column: None if the order of the rows is the order in time.
        rating_column: column of ratings, if they are wanted.
        item_id_column: column of item ids in `items`.
        text_columns: columns of `items` to keep.
        min_rating: leaves out interactions with a lower rating.
        memory_mb: what sorting may take, at least 64.
        progress: wraps batches and parts, with a word for what is done.

    Raises:
        DataError: lists everything that is wrong with the two tables, with file and row; interactions with
            unknown items are found, and listed, after all else.
        BundleError: `output` holds something else or cannot be written.

    Warns:
        UserWarning: rows repeat a user, an item and a time.
    """
    if min_rating is not None and rating_column is None:
        raise DataError(f"min_rating: {min_rating} without a rating_column; say which column has the ratings")
    if memory_mb < LEAST_MEMORY_MB:
        raise DataError(f"memory_mb: {memory_mb} is too little to sort with; give {LEAST_MEMORY_MB} or more")
    target = check_output(output, marker=stored.ABOUT, what="stored data set")
    rows_per_part = memory_mb * 1_000_000 // BYTES_PER_ROW
    n_rows = max(rows_per_part // BATCHES_IN_MEMORY, 1)
    parts = find_parts(interactions, name="interactions")
    table = ItemTable(find_parts(items, name="items"), item_id_column or item_column, text_columns)
    wanted = [column for column in (user_column, item_column, time_column, rating_column) if column]
    raise_problems([*check_columns(parts, wanted, name="interactions"), *table.check_columns()])
    reading = _Reading(
        parts=parts,
        user=user_column,
        item=item_column,
        time=time_column,
        rating=rating_column,
        min_rating=min_rating,
        n_rows=n_rows,
        users=IdColumn(f"interactions.{user_column}"),
        items=IdColumn(f"interactions.{item_column}"),
        times=None if time_column is None else TimeColumn(f"interactions.{time_column}"),
    )
    n_items = max(n_rows // ROWS_PER_ITEM, 1)
    problems = look_at_items(table, n_rows=n_items, progress=progress)
    raise_problems(
        problems + reading.look(sample_every=max(rows_per_part // SAMPLED_PER_PART, 1), progress=progress)
    )

    def fill(folder: Path) -> None:
        as_numbers = table.ids.canonical and reading.items.canonical
        known = IdTable(write_items(table, folder, n_rows=n_items, as_numbers=as_numbers, progress=progress))
        spill = reading.spill(folder / "parts", known, as_numbers=as_numbers, progress=progress)
        notes = _sort(spill, folder, reading, progress=progress)
        shutil.rmtree(folder / "parts")
        stored.write_about(folder, fields=table.fields, notes=notes)

    return open_stored(write_folder(target, fill))


@dataclass
class _Reading:
    """The table of interactions, what a look at it found, and how it is read after that."""

    parts: list[Part]
    user: str
    item: str
    time: str | None
    rating: str | None
    min_rating: float | None
    n_rows: int
    users: IdColumn
    items: IdColumn
    times: TimeColumn | None
    sample: list[pa.Array] = field(default_factory=list)
    """Users of evenly spaced rows."""
    highest: float = -np.inf
    """Rating."""
    n_seen: int = 0
    """Rows that `look` went through."""

    def _batches(self, progress: Progress, what: str) -> Iterator[tuple[Part, int, pa.RecordBatch]]:
        columns = list(dict.fromkeys(c for c in (self.user, self.item, self.time, self.rating) if c))
        yield from progress(batches_of(self.parts, columns, n_rows=self.n_rows), what)

    def look(self, *, sample_every: int, progress: Progress) -> list[DataProblem]:
        """Goes through the table once and gives what is wrong with it."""
        findings, seen = Findings(), 0
        for part, first, batch in self._batches(progress, "looking at interactions"):
            place: dict[str, Any] = {"part": part, "first_row": first}
            users = cells_of(batch, self.user)
            self.users.look(users, findings=findings, **place)
            self.items.look(cells_of(batch, self.item), findings=findings, **place)
            if self.times is not None and self.time is not None:
                self.times.look(cells_of(batch, self.time), **place)
            if self.rating is not None:
                cells = cells_of(batch, self.rating)
                look_at_numbers(cells, where=f"interactions.{self.rating}", findings=findings, **place)
            rows = np.arange(-seen % sample_every, len(batch), sample_every)
            if len(rows):
                self.sample.append(users.take(pa.array(rows)))
            seen += len(batch)
        self.n_seen = seen
        if not seen:
            return [DataProblem("interactions", "a header and no rows", "give at least one row")]
        times = [] if self.times is None else self.times.problems()
        return [*self.users.problems(), *self.items.problems(), *times, *findings.problems()]

    def spill(self, folder: Path, known: IdTable, *, as_numbers: bool, progress: Progress) -> Spill:
        """Writes the rows that are kept into parts, their items as numbers."""
        numbers = self.users.canonical
        cuts = cut_ranges([self.users.read(cells, as_numbers=numbers) for cells in self.sample])
        if len(cuts) >= MOST_PARTS:
            times = len(cuts) // MOST_PARTS + 1
            raise DataError(f"memory_mb: too little for so many interactions; give {times} times as much")
        spill, findings, n_read = None, Findings(), 0
        for part, first, batch in self._batches(progress, "parting interactions"):
            ids = self.items.read(cells_of(batch, self.item), as_numbers=as_numbers)
            places = known.find(ids)
            where = f"interactions.{self.item}"
            what, fix = (
                "with an item that the item table lacks",
                "add the items to the item table or drop those rows",
            )
            unknown, n_read = places < 0, n_read + len(batch)
            findings.add(
                where, what, fix, unknown, part=part, first_row=first, cells=cells_of(batch, self.item)
            )
            if findings.found:  # the rest is gone through for what else is unknown
                continue
            columns: dict[str, Any] = {
                "user": self.users.read(cells_of(batch, self.user), as_numbers=numbers),
                "item": places,
            }
            columns |= self._numbers(batch)
            rows = pa.record_batch(columns)
            if self.min_rating is not None:
                self.highest = max(self.highest, pc.max(rows.column("rating")).as_py())
                rows = rows.filter(pc.greater_equal(rows.column("rating"), self.min_rating))
            spill = spill or Spill(folder, cuts, rows.schema)
            spill.add(rows)
        findings.raise_if_any()
        if spill is None or n_read != self.n_seen:
            raise DataError(
                f"interactions: {self.n_seen:,} rows when looked at and {n_read:,} when read again; give a"
                " table that stays as it is, and no stream that can be gone through once alone"
            )
        spill.close()
        return spill

    def _numbers(self, batch: pa.RecordBatch) -> dict[str, NDArray[Any]]:
        columns: dict[str, NDArray[Any]] = {}
        if self.times is not None and self.time is not None:
            found = self.times.read(cells_of(batch, self.time))
            columns["time"] = found.values
            if found.fraction is not None:
                columns["fraction"] = found.fraction
        if self.rating is not None:
            columns["rating"] = read_numbers(cells_of(batch, self.rating).to_pandas()).values
        return columns


def _sort(spill: Spill, folder: Path, reading: _Reading, *, progress: Progress) -> list[str]:
    """Sorts part after part to the ends of the files, and gives the notes."""
    n_rows = n_moved = n_repeats = 0
    users = pa.schema({"user_id": pa.large_string()})
    wanted: dict[str, tuple[str, type]] = {"item": (stored.VALUES, np.int64)}
    if reading.times is not None:
        wanted["time"] = (stored.TIMES, np.int64)
    if reading.rating is not None:
        wanted["rating"] = (stored.RATINGS, np.float64)
    with ExitStack() as files:
        sink = files.enter_context(pa.OSFile(str(folder / stored.USERS), "wb"))
        ids = files.enter_context(pa.ipc.new_file(sink, users))
        offsets = files.enter_context(ArrayWriter(folder / stored.OFFSETS, np.int64))
        writers = {
            column: files.enter_context(ArrayWriter(folder / name, dtype))
            for column, (name, dtype) in wanted.items()
        }
        offsets.append(np.zeros(1, np.int64))
        for file in progress(spill.files, "sorting parts"):
            part = sort_part(file)
            file.unlink()
            ids.write_batch(pa.record_batch([part.user_ids], schema=users))
            offsets.append(n_rows + np.cumsum(part.counts))
            for column, writer in writers.items():
                writer.append(part.columns[column])
            n_rows += len(part.columns["item"])
            n_moved, n_repeats = n_moved + part.n_moved, n_repeats + part.n_repeats
    if not n_rows:
        raise DataError(
            f"min_rating: no rating reaches {reading.min_rating} (highest: {reading.highest}); lower it"
        )
    if n_repeats:
        note = f"{n_repeats:,} interactions repeat a user, an item and a time; drop them if they are copies"
        warnings.warn(f"data: {note}", stacklevel=5)
    unit = 0 if reading.times is None else reading.times.unit
    notes = [f"the times are {UNITS[unit]}; they were read as such"] if unit else []
    if n_moved:
        notes.append(f"{n_moved:,} interactions were not in the order of their times; they were sorted")
    return notes
