"""UCI Online Retail: invoices of a gift shop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.columns import read_numbers
from lora_rec.data.publishers.published import Download, Published, Publisher
from lora_rec.data.publishers.tables import FIX, find_folder, import_pandas
from lora_rec.data.sources import load_dataset, read_table
from lora_rec.errors import DataError, did_you_mean, missing_extra

if TYPE_CHECKING:
    import pandas as pd

_SUFFIXES = ("*.parquet", "*.csv", "*.xlsx")
_COLUMNS = ("Description", "Quantity", "InvoiceDate", "CustomerID")
_DATE_FORMATS = ("ISO8601", "%m/%d/%Y %H:%M")  # Parquet and xlsx hold dates; copies as CSV write either


def read_online_retail(folder: Path) -> Published:
    """Reads UCI Online Retail from Parquet, CSV or xlsx.

    The stripped description is the item id and the only field, `title`. Rows without a customer or a
    description, and rows whose quantity is not positive (cancellations), are dropped; equal items of one
    basket are one interaction. Customer and time together are the basket. Times are to the minute, as UTC.

    Args:
        folder: holds one `.parquet`, `.csv` or `.xlsx` file with the columns Description, Quantity,
            InvoiceDate and CustomerID; others are not read. The first by name, Parquet before CSV before
            xlsx, is taken.

    Raises:
        DataError: no such file, a column is missing, or a cell cannot be read.
        LoraRecError: the file is xlsx and openpyxl, of the extra `train`, is not installed.
    """
    pd = import_pandas()
    root = find_folder(folder, files=_SUFFIXES, needs=PUBLISHER.files)
    path = next(file for pattern in _SUFFIXES for file in sorted(root.glob(pattern)))
    table = _read_xlsx(path) if path.suffix == ".xlsx" else read_table(path, name="online-retail")
    for column in _COLUMNS:
        if column not in table.columns:
            hint = did_you_mean(column, map(str, table.columns)) or "give the file as UCI has it"
            raise DataError(f"{path}: no column {column}; {hint}")
    quantity = read_numbers(table["Quantity"])
    customer = read_numbers(table["CustomerID"])
    _refuse(path, quantity.wrong | quantity.missing, table["Quantity"], "Quantity", "whole number")
    _refuse(
        path, customer.wrong | (customer.values % 1 != 0), table["CustomerID"], "CustomerID", "whole number"
    )
    title = (
        table["Description"].astype("object").where(table["Description"].notna(), "").astype(str).str.strip()
    )
    reasons = {
        "rows without a customer": customer.missing,
        "rows without a description": (title == "").to_numpy(),
        "rows with a quantity that is not positive": quantity.values <= 0,
    }
    keep = ~np.logical_or.reduce(list(reasons.values()))
    if not keep.any():
        raise DataError(
            f"{path}: no row has a customer, a description and a positive quantity; give the whole file"
        )
    rows = pd.DataFrame(
        {
            "user": customer.values[keep].astype(np.int64),
            "item": title[keep].to_numpy(),
            "time": _read_times(path, table["InvoiceDate"])[keep],
        }
    )
    once = rows.drop_duplicates()
    items = once[["item"]].drop_duplicates().sort_values("item").assign(title=lambda found: found["item"])
    dataset = load_dataset(once, items, user_column="user", item_column="item", time_column="time")
    notes = [f"{int(mask.sum()):,} {reason} left out" for reason, mask in reasons.items() if mask.any()]
    if len(once) < len(rows):
        notes.append(f"{len(rows) - len(once):,} rows repeat an item of their basket; each is kept once")
    return Published("online-retail", dataset, notes=tuple(notes))


def _read_xlsx(path: Path) -> pd.DataFrame:
    pd = import_pandas()
    try:
        return pd.read_excel(path)
    except ImportError as error:
        raise missing_extra("openpyxl", extra="train") from error
    except Exception as error:  # openpyxl has no common error for a broken file
        raise DataError(f"{path}: cannot be read as xlsx ({error}); download the file again") from error


def _read_times(path: Path, cells: pd.Series) -> NDArray[np.int64]:
    """Gives unix seconds; text is read in the form that fits more of the column."""
    pd = import_pandas()
    read = [pd.to_datetime(cells, format=form, errors="coerce") for form in _DATE_FORMATS]
    times = min(read, key=lambda found: int(found.isna().sum()))
    _refuse(path, np.asarray(times.isna()), cells, "InvoiceDate", "date such as 2010-12-01 08:26:00")
    return times.to_numpy("datetime64[s]").astype(np.int64)


def _refuse(path: Path, bad: NDArray[np.bool_], cells: pd.Series, column: str, noun: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"{path}, line {row + 2}: {column} {str(cells.iloc[row])!r} is no {noun}; {FIX}")


PUBLISHER = Publisher(
    name="online-retail",
    domain="e-commerce",
    home="https://archive.ics.uci.edu/dataset/352/online+retail",
    licence="CC BY 4.0: use and share freely, and name the source: Chen, UCI Machine Learning Repository,"
    " 2015.",
    read=read_online_retail,
    files="one .parquet, .csv or .xlsx file (the archive holds 'Online Retail.xlsx')",
    downloads={"uci": Download("https://archive.ics.uci.edu/static/public/352/online+retail.zip")},
)
