"""One column of a table that does not fit in memory: a look at all of it, then batches read as that says.

The rules are those of `columns`; what those decide by the whole column (the unit of times, whether all ids
end in ".0") is found by the look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lora_rec.data.columns import (
    BOUNDS,
    WHOLE,
    Numbers,
    read_dates,
    read_numbers,
    to_seconds,
    whole_numbers,
)
from lora_rec.data.parts import Findings, Part
from lora_rec.data.validate import ID_KINDS, DataProblem
from lora_rec.errors import DataError

CANONICAL = "^(0|[1-9][0-9]{0,17})$"
"""An id that is the same as a number and as text."""
SHORTEST_NO_DATE = 1e8
"""Text of a larger number is no ISO 8601 date; 20200101 is one."""


def cells_of(batch: pa.RecordBatch, column: str) -> pa.Array:
    """Gives a column without dictionaries, and of text that every function of pyarrow takes."""
    cells = batch.column(column)
    cells = cells.dictionary_decode() if pa.types.is_dictionary(cells.type) else cells
    return cells.cast(pa.large_string()) if pa.types.is_string_view(cells.type) else cells


def is_text(cells: pa.Array) -> bool:
    """True for strings."""
    return pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)


def mask_of(mask: pa.Array) -> NDArray[np.bool_]:
    """Gives a mask of numpy; unknown is false."""
    return np.asarray(pc.fill_null(mask, False))


@dataclass
class IdColumn:
    """A column of ids, or two that have the same ids."""

    where: str
    kinds: dict[str, str] = field(default_factory=dict)
    """Kind of value to where it was seen first."""
    canonical: bool = True
    """Every id is the same as a number and as text, so numbers may stand for them."""
    whole: bool = True
    """Every id is text that ends in ".0"."""

    def look(self, cells: pa.Array, *, findings: Findings, part: Part, first_row: int) -> None:
        """Looks at a batch."""
        ids, kind = _plain(cells)
        if kind and kind not in self.kinds:
            row = int(np.argmax(mask_of(pc.is_valid(cells))))
            self.kinds[kind] = f"{part.name} row {first_row + row}: {cells[row].as_py()!r}".strip()
        if ids is None:
            return
        findings.add(
            self.where,
            "with an empty id",
            "fill in the ids or drop those rows",
            mask_of(pc.is_null(ids)),
            part=part,
            first_row=first_row,
            cells=cells,
        )
        if is_text(ids):
            if self.whole:
                self.whole = pc.all(pc.match_substring_regex(ids, f"^{WHOLE}$")).as_py() is not False
            if self.canonical:
                self.canonical = pc.all(pc.match_substring_regex(ids, CANONICAL)).as_py() is not False
        elif kind:
            self.whole = False
            self.canonical &= bool((pc.min(ids).as_py() or 0) >= 0)

    def problems(self) -> list[DataProblem]:
        """Gives what is wrong with the kinds of values."""
        if not self.kinds or set(self.kinds) in ID_KINDS:
            return []
        kinds = " and ".join(sorted(self.kinds))
        what = f"ids of mixed types {kinds}" if len(self.kinds) > 1 else f"ids of type {kinds}"
        fix = "give whole numbers or strings, one of the two"
        return [DataProblem(self.where, what, fix, 1, tuple(self.kinds.values()))]

    def read(self, cells: pa.Array, *, as_numbers: bool) -> pa.Array:
        """Gives int64 where `as_numbers`, which needs `canonical`, and else large strings."""
        ids, kind = _plain(cells)
        if ids is None:
            raise DataError(f"{self.where}: ids of type {kind}; the table has changed since it was looked at")
        if self.whole and is_text(ids):
            ids = pc.utf8_slice_codeunits(ids, 0, -2)
        return ids.cast(pa.int64() if as_numbers else pa.large_string())


def _plain(cells: pa.Array) -> tuple[pa.Array | None, str]:
    """Gives ids as int64 or text, null where empty, and their kind as `columns` calls it; "" for none."""
    kind = cells.type
    if cells.null_count == len(cells):
        return pa.nulls(len(cells), pa.large_string()), ""
    if pa.types.is_integer(kind):
        return cells.cast(pa.int64() if kind != pa.uint64() else pa.large_string()), "int"
    if is_text(cells):
        empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(cells)), 0)
        return pc.if_else(empty, None, cells) if pc.any(empty).as_py() else cells, "str"
    if pa.types.is_floating(kind):
        values = cells.cast(pa.float64())
        there = pc.if_else(pc.is_nan(values), None, values)
        largest = pc.max(pc.abs(there)).as_py()
        if pc.all(pc.equal(pc.floor(there), there)).as_py() is False or (largest or 0) >= 2**63:
            return None, "float"
        return there.cast(pa.int64()), "whole float"
    return None, "bool" if pa.types.is_boolean(kind) else str(kind)


@dataclass
class TimeColumn:
    """A column of times: numbers of some unit, dates, or ISO 8601 text."""

    where: str
    as_numbers: Findings = field(default_factory=Findings)
    as_dates: Findings = field(default_factory=Findings)
    n_wrong: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    """Cells that are no number, and cells that are no date."""
    n_in_unit: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(BOUNDS) + 1, np.int64))
    """Cells whose size fits each of `columns.UNITS`."""
    floats: bool = False
    """Some batch may have parts of a unit."""

    def look(self, cells: pa.Array, *, part: Part, first_row: int) -> None:
        """Looks at a batch."""
        place: Mapping[str, Any] = {"part": part, "first_row": first_row}
        found = _numbers(cells)
        dates = _dates(cells, found)
        numbers = found or replace(dates, wrong=~dates.missing)
        if found is not None:
            self.floats |= found.values.dtype.kind == "f"
            good = found.values[~(found.missing | found.wrong)]
            sizes = np.digitize(np.abs(good), BOUNDS)
            self.n_in_unit += np.bincount(sizes, minlength=len(self.n_in_unit))
        self._note(self.as_numbers, numbers, cells, place)
        self._note(self.as_dates, dates, cells, place)
        self.n_wrong += np.array([numbers.wrong.sum(), dates.wrong.sum()])

    def _note(self, findings: Findings, found: Numbers, cells: pa.Array, place: Mapping[str, Any]) -> None:
        findings.add(
            self.where, "without a time", "fill in the times or drop those rows", found.missing, **place
        )
        fix = "give unix seconds or ISO 8601 dates"
        findings.add(self.where, "where the cell is no time", fix, found.wrong, cells=cells, **place)

    @property
    def dates(self) -> bool:
        """True where more cells are dates than numbers."""
        return bool(self.n_wrong[1] < self.n_wrong[0])

    @property
    def unit(self) -> int:
        """Which of `columns.UNITS` the numbers count: that of their median size."""
        half = np.cumsum(self.n_in_unit) * 2
        return 0 if self.dates or not half[-1] else int(np.argmax(half > half[-1] // 2))

    def problems(self) -> list[DataProblem]:
        """Gives what is wrong with the cells, read as what most of them are."""
        return (self.as_dates if self.dates else self.as_numbers).problems()

    def read(self, cells: pa.Array) -> Numbers:
        """Gives seconds and, for every batch or for none, what is beyond them."""
        found = None if self.dates else _numbers(cells)
        if found is None:
            return read_dates(cells.to_pandas())
        found = to_seconds(found.values, missing=found.missing, wrong=found.wrong, unit=self.unit)
        if self.floats and found.fraction is None:
            return replace(found, fraction=np.zeros(len(cells)))
        return found


def _numbers(cells: pa.Array) -> Numbers | None:
    """Gives the numbers of a batch in their own unit; None where the type is a date."""
    if pa.types.is_temporal(cells.type):
        return None
    none = np.zeros(len(cells), bool)
    if pa.types.is_integer(cells.type) and not cells.null_count:
        return whole_numbers(cells.to_numpy())
    if is_text(cells) and not cells.null_count:
        try:  # ten times faster than what reads any text; float as there, so that rounding is the same
            return Numbers(cells.cast(pa.int64()).to_numpy().astype(np.float64), none, none)
        except pa.ArrowInvalid:
            pass
    return read_numbers(cells.to_pandas())


def _dates(cells: pa.Array, numbers: Numbers | None) -> Numbers:
    """Gives the dates of a batch, whose numbers are none where the type is a date.

    Only text may be either. Parsing takes long, so it is done where a cell is no number, or a number short
    enough to be a date as well: 20200101.
    """
    if numbers is None or (is_text(cells) and numbers.wrong.any()):
        return read_dates(cells.to_pandas())
    wrong = ~numbers.missing
    if is_text(cells):
        short = wrong & (np.abs(numbers.values) < SHORTEST_NO_DATE)
        if short.any():
            wrong[short] = read_dates(cells.filter(pa.array(short)).to_pandas()).wrong
    return replace(numbers, wrong=wrong)


def look_at_numbers(cells: pa.Array, *, where: str, findings: Findings, part: Part, first_row: int) -> None:
    """Notes what is wrong with a batch of numbers."""
    found = read_numbers(cells.to_pandas())
    place: Mapping[str, Any] = {"part": part, "first_row": first_row}
    findings.add(where, "without a number", "fill in the numbers or drop those rows", found.missing, **place)
    findings.add(
        where, "where the cell is no number", "give finite numbers", found.wrong, cells=cells, **place
    )
