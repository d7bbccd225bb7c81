"""One column of a table in, plain arrays out, and the rows that could not be read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

WHOLE = r"-?\d+\.0"
"""A whole number as a column of floats writes it."""
UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
BOUNDS = (1e11, 1e14, 1e17)
"""Numbers from these on count the next smaller unit: as seconds they would lie beyond the year 5138."""
_WHOLE = re.compile(WHOLE)


@dataclass(frozen=True, eq=False)
class Ids:
    """A column of ids: each row as a number, and the id that it stands for."""

    codes: NDArray[np.int64]
    """(rows,), a position in `names`; -1 where the id is missing or empty."""
    names: NDArray[np.str_]
    """The distinct ids, in order of first appearance."""
    kinds: dict[str, int]
    """Kind of value (int, str, ...) to the first row that has it; more than one kind is a mistake."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """A column of numbers or times."""

    values: NDArray[Any]
    """(rows,), float64, or int64 for times; 0 where `missing` or `wrong`."""
    missing: NDArray[np.bool_]
    """(rows,), true where the cell is empty or NaN."""
    wrong: NDArray[np.bool_]
    """(rows,), true where the cell holds something else."""
    fraction: NDArray[np.float64] | None = None
    """(rows,), what a time has beyond the whole second; only to sort by."""
    unit: str = "seconds"
    """What the numbers in the column counted."""


def read_ids(column: pd.Series) -> Ids:
    """Reads ids as strings: 318 and "318" become "318", and so does 318.0 in a column of whole floats.

    But in a column of Python objects, only the distinct values are looked at one by one.
    """
    import pandas as pd

    values = column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
    kinds = _kinds(values)
    if set(kinds) == {"float"}:
        values = values.astype(np.float64)
        whole = np.asarray(values.isna() | (values % 1 == 0))
        kinds = {"float": int(np.argmin(whole))} if not whole.all() else {"whole float": 0}
    if not set(kinds) <= {"int", "str", "whole float"}:
        return Ids(np.full(len(values), -1, np.int64), np.empty(0, np.str_), kinds)
    codes, distinct = pd.factorize(values)
    names = [str(int(v)) if isinstance(v, float) else str(v) for v in distinct.tolist()]
    return _join_names(np.asarray(codes, np.int64), _without_point_zero(names), kinds)


def _kinds(values: pd.Series) -> dict[str, int]:
    """Gives each kind of value in a column, with the first row that has it."""
    if values.dtype != object:
        first = int(np.argmax(values.notna())) if len(values) else 0
        return {_kind(values.iloc[first]): first} if values.notna().any() else {}
    rows = values.map(lambda value: "" if _is_missing(value) else _kind(value)).to_numpy(object)
    return {kind: int(np.argmax(rows == kind)) for kind in sorted(set(rows)) if kind}


def _join_names(codes: NDArray[np.int64], names: list[str], kinds: dict[str, int]) -> Ids:
    """Joins ids that are the same text, and marks empty ones as missing."""
    import pandas as pd

    joined, uniques = pd.factorize(np.array(names, object))
    distinct = np.array(uniques.tolist(), np.str_)
    full = np.char.str_len(np.char.strip(distinct)) > 0
    place = np.where(full, np.cumsum(full) - 1, -1)
    return Ids(np.append(place[joined], -1)[codes].astype(np.int64), distinct[full], kinds)


def _kind(value: Any) -> str:
    """Names the kind of one value; numpy's numbers count as Python's."""
    if isinstance(value, (bool, np.bool_)):
        return "bool"
    if isinstance(value, (int, np.integer)):
        return "int"
    if isinstance(value, (float, np.floating)):
        return "float"
    return type(value).__name__


def _is_missing(value: Any) -> bool:
    """True for None, NaN, NaT and pandas' NA."""
    import pandas as pd

    return pd.api.types.is_scalar(value) and bool(pd.isna(value))


def _without_point_zero(texts: list[str]) -> list[str]:
    """Takes the ".0" off a column that holds nothing else: a CSV written from a float column.

    >>> _without_point_zero(["1995.0", "", "2001.0"]), _without_point_zero(["1.0", "Se7en"])
    (['1995', '', '2001'], ['1.0', 'Se7en'])
    """
    if not any(texts) or not all(_WHOLE.fullmatch(text) for text in texts if text):
        return texts
    return [text[:-2] for text in texts]


def read_texts(column: pd.Series) -> tuple[str, ...]:
    """Reads one text per row, "" where it is missing; a list of texts is joined with commas."""
    return tuple(_without_point_zero([read_text(value) for value in column.tolist()]))


def read_text(value: Any) -> str:
    """Reads one cell; see `read_texts`."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(text for text in map(read_text, value) if text)
    return "" if _is_missing(value) else str(value).strip()


def read_numbers(column: pd.Series) -> Numbers:
    """Reads float64 numbers, also from text; infinity is wrong, and so are booleans and dates.

    4,5 is four and a half; 4,500 is wrong, since it may be either.
    """
    import pandas as pd

    missing = np.array(column.isna(), bool)
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return Numbers(np.zeros(len(column)), missing, ~missing)
    if not pd.api.types.is_numeric_dtype(column):
        column = column.astype(str).str.strip()
        missing |= np.asarray(column.str.lower().isin(["", "nan"]), bool)
        # One or two digits after a comma cannot be thousands.
        column = column.str.replace(r"^([+-]?\d+),(\d{1,2})$", r"\1.\2", regex=True)
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = ~missing & ~np.isfinite(values)
    return Numbers(np.where(missing | wrong, 0.0, values), missing, wrong)


def read_times(column: pd.Series) -> Numbers:
    """Reads unix seconds from numbers, from datetimes, and from ISO 8601 text; without a zone it is UTC.

    Numbers so large that they would lie beyond the year 5138 are milli-, micro- or nanoseconds.
    """
    import pandas as pd

    if pd.api.types.is_integer_dtype(column) and not column.hasnans:
        found = whole_numbers(column.to_numpy())
        return _in_own_unit(found.values, missing=found.missing, wrong=found.wrong)
    if pd.api.types.is_datetime64_any_dtype(column):
        return read_dates(column)
    numbers = read_numbers(column)
    if not pd.api.types.is_numeric_dtype(column) and numbers.wrong.any():
        dates = read_dates(column)
        if dates.wrong.sum() < numbers.wrong.sum():
            return dates
    return _in_own_unit(numbers.values, missing=numbers.missing, wrong=numbers.wrong)


def whole_numbers(values: NDArray[Any]) -> Numbers:
    """Gives integers of any kind; those beyond int64 are wrong."""
    wrong = values > np.iinfo(np.int64).max if values.dtype.kind == "u" else np.zeros(len(values), bool)
    return Numbers(np.where(wrong, 0, values).astype(np.int64), np.zeros(len(values), bool), wrong)


def _in_own_unit(values: NDArray[Any], *, missing: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> Numbers:
    """Finds one unit for the whole column, by its median, and gives whole seconds and what is beyond them."""
    good = values[~(missing | wrong)]
    middle = np.median(np.abs(good)) if good.size else 0
    return to_seconds(values, missing=missing, wrong=wrong, unit=int(np.digitize(middle, BOUNDS)))


def to_seconds(
    values: NDArray[Any], *, missing: NDArray[np.bool_], wrong: NDArray[np.bool_], unit: int
) -> Numbers:
    """Gives whole seconds, and what is beyond them, of numbers that count one of `UNITS`."""
    seconds, rest = np.divmod(values, 1000**unit)
    fraction = None if rest.dtype.kind == "i" and not unit else rest / 1000**unit
    return Numbers(seconds.astype(np.int64), missing, wrong, fraction, UNITS[unit])


def read_dates(column: pd.Series) -> Numbers:
    """Reads datetimes, or ISO 8601 text; without a zone it is UTC. A duration is wrong."""
    import pandas as pd

    if pd.api.types.is_timedelta64_dtype(column):
        none = np.asarray(column.isna(), bool)
        return Numbers(np.zeros(len(column), np.int64), none, ~none, np.zeros(len(column)))
    texts = column if pd.api.types.is_datetime64_any_dtype(column) else _with_zone(column)
    parsed = pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601")
    missing = np.asarray(column.isna() | (column.astype(str).str.strip() == ""), bool)
    wrong = np.asarray(parsed.isna(), bool) & ~missing
    micros = parsed.fillna(pd.Timestamp(0, tz="UTC")).dt.as_unit("us").astype(np.int64).to_numpy()
    seconds, rest = np.divmod(micros, 1_000_000)
    return Numbers(seconds, missing, wrong, rest / 1_000_000)


def _with_zone(column: pd.Series) -> pd.Series:
    """Writes the zone of texts such as 2024-02-07 06:00:05 UTC as ISO 8601 does."""
    is_text = column.map(lambda cell: isinstance(cell, str))
    return column.where(~is_text, column.astype(str).str.replace(r"\s*UTC\s*$", "Z", regex=True))
