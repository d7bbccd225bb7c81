"""An item table of any size into one memory-mapped Arrow file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lora_rec.data import stored
from lora_rec.data.columns import WHOLE, read_text
from lora_rec.data.part_columns import IdColumn, cells_of, is_text
from lora_rec.data.parts import Findings, Part, Progress, batches_of, check_columns
from lora_rec.data.validate import DataProblem
from lora_rec.errors import DataError


@dataclass
class ItemTable:
    """The table of items and what a look at it found."""

    parts: list[Part]
    id_column: str
    text_columns: Sequence[str] | None
    ids: IdColumn = field(init=False)
    whole: set[str] = field(init=False)
    """Fields whose every text ends in ".0", which goes."""
    n_items: int = field(init=False, default=0)
    """Rows when it was looked at."""

    def __post_init__(self) -> None:
        self.ids = IdColumn(f"items.{self.id_column}")
        self.whole = set(self.fields)

    @property
    def fields(self) -> list[str]:
        """The columns of texts that are kept."""
        if self.text_columns is not None:
            return list(self.text_columns)
        return [column for column in self.parts[0].columns if column != self.id_column]

    def check_columns(self) -> list[DataProblem]:
        """Finds columns that are missing or there twice."""
        return check_columns(self.parts, [self.id_column, *self.fields], name="items")


def look_at_items(table: ItemTable, *, n_rows: int, progress: Progress) -> list[DataProblem]:
    """Goes through the table once and gives what is wrong with it."""
    findings = Findings()
    ids: list[pa.Array] = []
    spans: list[tuple[Part, int, int]] = []
    columns = [table.id_column, *table.fields]
    for part, first, batch in progress(batches_of(table.parts, columns, n_rows=n_rows), "looking at items"):
        cells = cells_of(batch, table.id_column)
        table.ids.look(cells, findings=findings, part=part, first_row=first)
        ids.append(cells)
        spans.append((part, first, len(batch)))
        for name in sorted(table.whole):
            texts = _texts(cells_of(batch, name))
            full = pc.not_equal(texts, "")
            if pc.all(pc.match_substring_regex(texts.filter(full), f"^{WHOLE}$")).as_py() is False:
                table.whole.discard(name)
    table.n_items = sum(count for _, _, count in spans)
    if not ids:
        return [DataProblem("items", "a header and no rows", "give at least one row")]
    problems = table.ids.problems()
    if not problems:
        read = pa.concat_arrays([table.ids.read(cells, as_numbers=table.ids.canonical) for cells in ids])
        first_rows = pc.index_in(read, value_set=read).to_numpy(zero_copy_only=False)
        again = first_rows < np.arange(len(read))
        again &= ~np.asarray(pc.is_null(read))
        start = 0
        for (part, first, count), cells in zip(spans, ids, strict=True):
            findings.add(
                table.ids.where,
                "with an item that an earlier row has",
                "keep one row per item",
                again[start : start + count],
                part=part,
                first_row=first,
                cells=cells,
            )
            start += count
    return problems + findings.problems()


def write_items(
    table: ItemTable, folder: Path, *, n_rows: int, as_numbers: bool, progress: Progress
) -> pa.Array:
    """Writes the ids and fields of all items; gives the ids as int64 if asked for, else as large strings."""
    names = [f"field {place}" for place in range(len(table.fields))]
    schema = pa.schema([(name, pa.large_string()) for name in ("item_id", *names)])
    known: list[pa.Array] = []
    columns = [table.id_column, *table.fields]
    with pa.OSFile(str(folder / stored.ITEMS), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for _, _, batch in progress(batches_of(table.parts, columns, n_rows=n_rows), "writing items"):
            cells = cells_of(batch, table.id_column)
            ids = table.ids.read(cells, as_numbers=False)
            known.append(table.ids.read(cells, as_numbers=True) if as_numbers else ids)
            fields = [_texts(cells_of(batch, name)) for name in table.fields]
            for place, name in enumerate(table.fields):
                if name in table.whole:
                    fields[place] = pc.replace_substring_regex(fields[place], r"\.0$", "")
            writer.write_batch(pa.record_batch([ids, *fields], schema=schema))
    n_written = sum(len(part) for part in known)
    if n_written != table.n_items:
        raise DataError(
            f"items: {table.n_items:,} rows when looked at and {n_written:,} when read again; give a table"
            " that stays as it is, and no stream that can be gone through once alone"
        )
    return pa.concat_arrays(known)


def _texts(cells: pa.Array) -> pa.Array:
    """Gives large strings as `columns.read_texts` reads them, "" where a text is missing."""
    if pa.types.is_integer(cells.type):
        cells = cells.cast(pa.large_string())
    if is_text(cells):
        return pc.utf8_trim_whitespace(pc.fill_null(cells.cast(pa.large_string()), ""))
    return pa.array([read_text(value) for value in cells.to_pandas().tolist()], pa.large_string())
