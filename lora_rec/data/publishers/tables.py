"""Reads publishers' text tables fast, and finds the bad line when that fails."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_rec.errors import DataError, did_you_mean, missing_extra

if TYPE_CHECKING:
    import pandas as pd

FIX = "put the line right, or download the file again"


def find_folder(folder: Path, *, files: Sequence[str], needs: str) -> Path:
    """Gives the folder that holds one of the files: the one given, or one inside it, as archives unpack.

    Args:
        folder: where to look.
        files: file names or patterns; one match is enough.
        needs: says in the error what should be there.

    Raises:
        DataError: there is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        near = did_you_mean(folder.name, [p.name for p in folder.parent.glob("*")])
        raise DataError(f"{folder}: no such folder; {near or 'check the path'}")
    for place in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
        if any(any(place.glob(pattern)) for pattern in files):
            return place
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    raise DataError(f"{folder}: holds {there}; give the folder with {needs}")


def need_file(path: Path) -> Path:
    """Gives the path back.

    Raises:
        DataError: there is no such file, or it is empty.
    """
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*")])
        raise DataError(f"{path}: no such file; {near or 'unpack the whole archive into this folder'}")
    if not path.stat().st_size:
        raise DataError(f"{path}: the file is empty; download it again")
    return path


def read_columns(
    path: Path,
    columns: Mapping[str, type],
    *,
    separator: str,
    header: bool = False,
    encoding: str = "utf-8-sig",
    quoted: bool = False,
) -> pd.DataFrame:
    """Reads a text table without a Python step per row; its index is 0..rows-1.

    Args:
        path: the file; every line has the columns, and none is blank.
        columns: name to int, float or str of every column, in the file's order. A cell of an int or float
            column has to be such a number.
        separator: one character, or `::`.
        header: whether the first line holds names; they are not read.
        encoding: of the file.
        quoted: whether cells may be quoted, as in CSV.

    Raises:
        DataError: no such file, or a line that does not have these columns; names the line.
    """
    pd = import_pandas()
    source: Path | io.BytesIO = need_file(path)
    place = separator
    if len(separator) > 1:  # pandas' fast parser takes one character
        source, place = io.BytesIO(path.read_bytes().replace(separator.encode(), b"\x1f")), "\x1f"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                source,
                sep=place,
                header=None,
                skiprows=int(header),
                names=list(columns),
                dtype={n: {int: "int64", float: "float64", str: str}[kind] for n, kind in columns.items()},
                index_col=False,
                keep_default_na=False,
                skip_blank_lines=False,
                quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
                encoding=encoding,
                low_memory=False,
            )
        bad = any(table[n].isna().any() for n, kind in columns.items() if kind is str)
        reason: Exception | None = None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not {encoding} at byte {error.start}; download the file again") from error
    except (ValueError, OverflowError, pd.errors.ParserWarning) as error:  # ParserError is a ValueError
        bad, reason = True, error
    if bad:
        kinds = list(columns.items())
        _raise_bad_line(path, kinds, separator, header=header, encoding=encoding, quoted=quoted, cause=reason)
    return table


def _raise_bad_line(
    path: Path,
    columns: Sequence[tuple[str, type]],
    separator: str,
    *,
    header: bool,
    encoding: str,
    quoted: bool,
    cause: Exception | None,
) -> None:
    """Raises the error for the first line that cannot be read; slow, so only for a file that has one."""
    with open(path, encoding=encoding, newline="") as file:
        if quoted:
            reader = csv.reader(file)
            rows = ((reader.line_num, cells) for cells in reader)
        else:
            rows = ((n, line.rstrip("\r\n").split(separator)) for n, line in enumerate(file, 1))
        for number, cells in rows:
            if header and number == 1:
                continue
            shown = separator.join(cells)[:60]
            if len(cells) != len(columns):
                raise DataError(
                    f"{path}, line {number}: {len(cells)} columns where {len(columns)} "
                    f"({', '.join(name for name, _ in columns)}) are needed: {shown!r}; {FIX}"
                ) from cause
            for (name, kind), cell in zip(columns, cells, strict=True):
                try:
                    kind(cell)
                except ValueError:
                    noun = "whole number" if kind is int else "number"
                    raise DataError(
                        f"{path}, line {number}: {name} {cell[:60]!r} is no {noun}; {FIX}"
                    ) from cause
    raise DataError(f"{path}: cannot be read ({cause}); download the file again") from cause


def check_known(path: Path, ids: pd.Series, known: pd.Series, *, what: str, header: bool) -> None:
    """Refuses ids that another table lacks.

    Args:
        path: the file with `ids`, one per line.
        ids: (rows,)
        known: the ids of the other table.
        what: names the ids and the other table, e.g. "movie that movies.dat lacks".
        header: whether the file's first line holds names.

    Raises:
        DataError: an id is not known; names the first line.
    """
    unknown = ~np.asarray(ids.isin(known))
    if unknown.any():
        row = int(np.argmax(unknown))
        rows = f"{int(unknown.sum()):,} lines have" if unknown.sum() > 1 else "the line has"
        raise DataError(
            f"{path}, line {row + 1 + header}: {ids.iloc[row]} is a {what} ({rows} one); "
            "use files of one release, whole"
        )


def check_once(path: Path, ids: pd.Series | list[str], *, header: bool) -> None:
    """Refuses an id that an earlier line of the file has.

    Raises:
        DataError: names the first such line.
    """
    column = import_pandas().Series(ids)
    twice = np.asarray(column.duplicated())
    if twice.any():
        row = int(np.argmax(twice))
        line = row + 1 + header
        raise DataError(f"{path}, line {line}: {column.iloc[row]} has a line before this one; {FIX}")


def import_pandas() -> Any:
    """Gives pandas.

    Raises:
        LoraRecError: it is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise missing_extra("pandas", extra="train") from error
    return pd
