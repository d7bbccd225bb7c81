"""Everything that can be wrong with two tables, found once and said in one error."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.columns import Ids, Numbers, read_ids, read_numbers, read_times
from lora_rec.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

N_EXAMPLES = 3
_DAY_OR_MONTH = re.compile(r"\s*\d{1,2}[/.-]\d{1,2}[/.-](\d{4}|\d{2})\b")
ID_KINDS = ({"int"}, {"str"}, {"whole float"})
"""Kinds of values that a column of ids may have: one of these alone."""


@dataclass(frozen=True)
class DataProblem:
    """One thing that is wrong with a table."""

    where: str
    """The table, or the table and its column."""
    what: str
    """What is wrong, with the count."""
    fix: str
    """What to do about it."""
    count: int = 1
    """How many rows (or columns, or files) have it."""
    examples: tuple[str, ...] = ()
    """Up to three rows and their values; rows are counted from 0, without the header."""

    def __str__(self) -> str:
        examples = f" ({', '.join(self.examples)})" if self.examples else ""
        return f"{self.where}: {self.what}{examples}; {self.fix}"


@dataclass(frozen=True, eq=False)
class CheckedTable:
    """The columns that could be read, by column name, and what is wrong with the table."""

    ids: dict[str, Ids] = field(default_factory=dict)
    numbers: dict[str, Numbers] = field(default_factory=dict)
    problems: list[DataProblem] = field(default_factory=list)


def raise_problems(problems: Sequence[DataProblem]) -> None:
    """Raises one error that lists all problems; does nothing where there are none.

    Raises:
        DataError: there is a problem.
    """
    if not problems:
        return
    noun = "problem" if len(problems) == 1 else "problems"
    in_rows = any(problem.examples for problem in problems)
    lines = [f"data: {len(problems)} {noun}" + "; put them right or drop those rows" * in_rows]
    lines += [f"  {problem}" for problem in problems]
    if in_rows:
        lines.append("  (rows are counted from 0, without the header)")
    raise DataError("\n".join(lines))


def check_table(
    table: pd.DataFrame,
    *,
    name: str,
    ids: Sequence[str],
    times: Sequence[str] = (),
    numbers: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> CheckedTable:
    """Reads the named columns and collects what is wrong with them.

    Args:
        table: the table; its index is 0..rows-1.
        name: what the messages call it.
        ids: columns of ids.
        times: columns of times; see `read_times`.
        numbers: columns of numbers.
        texts: columns that have to be there.
    """
    checked = CheckedTable(problems=_check_columns(table, [*ids, *times, *numbers, *texts], name=name))
    if any(problem.where == name for problem in checked.problems):  # no rows, or names that are there twice
        return checked
    for column in [c for c in ids if c in table.columns]:
        checked.ids[column] = read_ids(table[column])
        checked.problems.extend(_check_ids(checked.ids[column], table[column], where=f"{name}.{column}"))
    readers: list[tuple[Sequence[str], Callable[[pd.Series], Numbers], str, str]] = [
        (times, read_times, "time", "give unix seconds or ISO 8601 dates"),
        (numbers, read_numbers, "number", "give finite numbers"),
    ]
    for columns, read, noun, fix in readers:
        for column in [c for c in columns if c in table.columns]:
            checked.numbers[column] = found = read(table[column])
            cells, where = table[column], f"{name}.{column}"
            checked.problems.extend(
                _problem(where, found.missing, f"without a {noun}", f"fill in the {noun}s or drop those rows")
            )
            if noun == "time" and found.wrong.any() and _DAY_OR_MONTH.match(str(cells[found.wrong].iloc[0])):
                fix = "is 4/7 in July or in April? Write ISO 8601, with pandas.to_datetime and its dayfirst"
            checked.problems.extend(
                _problem(where, found.wrong, f"where the cell is no {noun}", fix, cells=cells)
            )
    return checked


def _check_columns(table: pd.DataFrame, columns: Sequence[str], *, name: str) -> list[DataProblem]:
    """Finds columns that are missing or there twice, and tables without rows."""
    there = [str(column) for column in table.columns]
    twice = sorted({column for column in there if there.count(column) > 1})
    problems = []
    if twice:
        problems.append(DataProblem(name, f"columns {twice} are there twice", "keep one of each", len(twice)))
    if there and not len(table):
        problems.append(DataProblem(name, "a header and no rows", "give at least one row"))
    elif not there:
        return [DataProblem(name, "an empty table", "give a table with a header and rows")]
    for column in dict.fromkeys(columns):
        if column not in there:
            hint = f"{did_you_mean(column, there)} (columns: {', '.join(there)})".strip()
            problems.append(DataProblem(f"{name}.{column}", "no such column", hint))
    return problems


def _problem(
    where: str, mask: NDArray[np.bool_], what: str, fix: str, *, cells: pd.Series | None = None
) -> list[DataProblem]:
    """Gives one problem where the mask is true somewhere: rows, and their values if cells are given."""
    count = int(mask.sum())
    if not count:
        return []
    rows = np.flatnonzero(mask)[:N_EXAMPLES].tolist()
    examples = [f"row {row}" if cells is None else f"row {row}: {_shown(cells, row)}" for row in rows]
    noun = "row" if count == 1 else "rows"
    return [DataProblem(where, f"{count:,} {noun} {what}", fix, count, tuple(examples))]


def _shown(cells: pd.Series, row: int) -> str:
    value = cells.iloc[row]
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_ids(ids: Ids, cells: pd.Series, *, where: str) -> list[DataProblem]:
    """Finds ids that are missing, of several types, or of a type that is no id."""
    if ids.kinds and set(ids.kinds) not in ID_KINDS:
        examples = tuple(f"row {row}: {_shown(cells, row)}" for row in ids.kinds.values())[:N_EXAMPLES]
        kinds = " and ".join(sorted(ids.kinds))
        what = f"ids of mixed types {kinds}" if len(ids.kinds) > 1 else f"ids of type {kinds}"
        return [DataProblem(where, what, "give whole numbers or strings, one of the two", 1, examples)]
    return _problem(
        where, ids.codes < 0, "with an empty id", "fill in the ids or drop those rows", cells=cells
    )


def check_catalog(ids: Ids, cells: pd.Series, *, where: str) -> list[DataProblem]:
    """Finds items that the item table has more than once."""
    first = np.full(len(ids.names), len(ids.codes), np.int64)
    rows = np.flatnonzero(ids.codes >= 0)
    np.minimum.at(first, ids.codes[rows], rows)
    again = np.zeros(len(ids.codes), bool)
    again[rows] = first[ids.codes[rows]] < rows
    return _problem(
        where, again, "with an item that an earlier row has", "keep one row per item", cells=cells
    )


def check_known(ids: Ids, cells: pd.Series, *, known: Ids, where: str) -> list[DataProblem]:
    """Finds interactions with an item that the item table does not have."""
    unknown = np.append(~np.isin(ids.names, known.names), False)[ids.codes]
    fix = "add the items to the item table or drop those rows"
    if unknown.all() and len(unknown):
        fix = f"the item table has ids like {known.names[:N_EXAMPLES].tolist()}: do both use the same ids?"
    return _problem(where, unknown, "with an item that the item table lacks", fix, cells=cells)
