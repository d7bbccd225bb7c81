"""What goes wrong in CSV and TSV that reads all the same, or whose error says nothing."""

from __future__ import annotations

import gzip
from pathlib import Path

from lora_rec.errors import DataError


def refuse_one_column(header: str, *, name: str) -> None:
    """Refuses a header whose columns are separated by something else.

    Raises:
        DataError: with the header, and what is to be done.
    """
    if "," not in header and any(mark in header for mark in ";|\t"):
        raise DataError(
            f"{name}: the header is one column {header!r};"
            " separate columns by commas in a .csv, by tabs in a .tsv"
        )


def first_line(path: Path) -> str:
    """Gives the first line of a file, without its end; of one in gzip, too."""
    opened = gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")
    with opened as file:
        return file.readline(10_000).decode("utf-8-sig", errors="replace").rstrip("\r\n")


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
