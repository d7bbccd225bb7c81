"""What goes wrong in CSV and TSV that reads all the same, or whose error says nothing."""

from __future__ import annotations

import codecs
import gzip
import re
from pathlib import Path
from typing import IO

USUAL_SEPARATORS = {"csv": ",", "tsv": "\t"}
"""Of columns, by kind of file."""


def column_separator(path: Path, kind: str) -> str:
    """Gives what separates columns: a comma in CSV, a tab in TSV, or what the file's header has more of.

    Spreadsheets write semicolons into a .csv where a comma is for decimals.

    Args:
        path: may be in gzip.
        kind: `csv` or `tsv`.
    """
    header = re.sub('"[^"]*"', "", _first_line(path))
    return max((USUAL_SEPARATORS[kind], ";", "\t", "|", ","), key=header.count)  # of equals the first


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _first_line(path: Path) -> str:
    """Gives the first line of a file, without its end."""
    with _opened(path) as file:
        return file.readline(10_000).decode("utf-8-sig", errors="replace").rstrip("\r\n")


def why_not_utf8(path: Path) -> str:
    """Says how to convert a file that is not UTF-8."""
    with _opened(path) as file:
        begin = file.read(2)
    if begin in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "it is UTF-16; convert it: iconv -f utf-16 -t utf-8"
    return "convert it, for example: iconv -f cp1252 -t utf-8 (what Western Windows writes)"


def check_quotes(cell: str, *, separator: str, column: str, row: int, n_columns: int) -> None:
    """Refuses a cell of several lines that are rows: the quote that opens it is closed rows later, if at all.

    A text may have lines, too, but no tab; in CSV, lines within it must be two, each with as many commas as a
    row has.

    Raises:
        ValueError: with the row.
    """
    inner = cell.split("\n")[1:-1]
    are_rows = n_columns > 1 and len(inner) > 1
    are_rows = are_rows and all(line.count(separator) >= n_columns - 1 for line in inner)
    if are_rows or (separator == "\t" and "\t" in cell):
        raise ValueError(
            f"row {row}: the quote that opens {column} {cell[:20]!r} takes in the rows after it, in"
            f" all {len(inner) + 1}; close it, or write it twice within a cell between quotes"
        )
