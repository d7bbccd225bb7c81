"""Tables that do not fit in memory, as batches of rows: files, folders of files, and `datasets`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lora_rec.data.sources import SUFFIXES
from lora_rec.data.text_files import check_quotes, column_separator
from lora_rec.data.validate import N_EXAMPLES, DataProblem, raise_problems
from lora_rec.errors import DataError, did_you_mean, missing_extra

if TYPE_CHECKING:
    import datasets

    BigSource: TypeAlias = (
        str
        | os.PathLike[str]
        | Sequence[str | os.PathLike[str]]
        | datasets.Dataset
        | datasets.IterableDataset
    )

KINDS = ("csv", "tsv", "parquet")
Progress = Callable[[Iterable[Any], str], Iterable[Any]]
"""Wraps blocks of work, with a word for what is done."""


def without_progress(blocks: Iterable[Any], what: str) -> Iterable[Any]:
    """Says nothing."""
    return blocks


@dataclass(frozen=True)
class Part:
    """One file, or one table of `datasets`."""

    name: str
    """Of the file, as messages say it; "" for a table that is no file."""
    kind: str
    """One of `KINDS`, or `datasets`."""
    source: Any
    columns: tuple[str, ...]

    def batches(self, columns: Sequence[str], *, n_rows: int) -> Iterator[pa.RecordBatch]:
        """Gives about `n_rows` rows at a time, never more; the cells of CSV and TSV are text, as written.

        Raises:
            DataError: the file does not read; it is named.
        """
        try:
            for table in self._tables(list(columns), n_rows):
                yield from table.to_batches(max_chunksize=n_rows)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            what = str(error).strip().splitlines()[0]
            raise DataError(f"{self.name or 'table'}: cannot be read ({what}); put the file right") from error

    def _tables(self, columns: list[str], n_rows: int) -> Iterator[pa.Table]:
        if self.kind == "datasets":
            chosen = self.source.select_columns(columns).with_format("arrow")
            yield from chosen.iter(batch_size=n_rows)
        elif self.kind == "parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(self.source, memory_map=False) as file:
                for batch in file.iter_batches(batch_size=n_rows, columns=columns, use_threads=False):
                    yield pa.Table.from_batches([batch])
        else:
            # All of them, because a stray quote in any takes in the rows after it.
            separator = column_separator(self.source, self.kind)
            with _open_text(self.source, self.kind, self.columns) as reader:
                waiting: list[pa.RecordBatch] = []
                n_read = 0
                for batch in reader:
                    self._check_quotes(batch, separator=separator, first_row=n_read)
                    n_read += len(batch)
                    waiting.append(batch.select(columns))
                    if sum(map(len, waiting)) >= n_rows:
                        yield pa.Table.from_batches(waiting).combine_chunks()
                        waiting = []
                if waiting:
                    yield pa.Table.from_batches(waiting).combine_chunks()

    def _check_quotes(self, batch: pa.RecordBatch, *, separator: str, first_row: int) -> None:
        for name, cells in zip(self.columns, batch.columns, strict=True):
            lines = pc.fill_null(pc.match_substring(cells, "\n"), False)
            for row in np.flatnonzero(lines.to_numpy(zero_copy_only=False)) if pc.any(lines).as_py() else ():
                check_quotes(
                    cells[int(row)].as_py(),
                    separator=separator,
                    column=name,
                    row=first_row + int(row),
                    n_columns=len(self.columns),
                )


def _open_text(path: Path, kind: str, columns: Sequence[str] | None = None) -> Any:
    """Opens CSV or TSV as `sources.read_table` reads it: every cell is text, an empty one is missing."""
    from pyarrow import csv

    names = None if columns is None else dict.fromkeys(columns, pa.string())
    return csv.open_csv(
        path,
        # One thread, because only then an error says in which row it is.
        read_options=csv.ReadOptions(use_threads=False, block_size=8 << 20),
        parse_options=csv.ParseOptions(delimiter=column_separator(path, kind), newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=names,
            include_columns=list(columns or []),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def find_parts(source: BigSource, *, name: str) -> list[Part]:
    """Gives the parts of a table, files of a folder by name.

    Args:
        source: a .parquet, .csv or .tsv file (the latter two also .gz), a folder of such files, several of
            them, the folder of `datasets.Dataset.save_to_disk`, or a `Dataset` or `IterableDataset` of
            `datasets`, which is gone through twice.
        name: what the messages call the table.

    Raises:
        DataError: there is no such file, its kind is not known, or it cannot be read.
    """
    if not isinstance(source, (str, os.PathLike)) and hasattr(source, "with_format"):
        return [_part_of_datasets(source, name=name)]
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir() and (path / "state.json").exists():
            return [_part_of_saved(path, name=name)]
        files = _files_of(path, name=name) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{name}: {path} is a folder without a file of {', '.join(KINDS)}; give one")
    else:
        files = [Path(path) for path in source]
    if not files:
        raise DataError(f"{name}: no file; give at least one")
    return [_part_of_file(file, name=name) for file in files]


def _files_of(folder: Path, *, name: str) -> list[Path]:
    """Gives the tables of a folder; those in folders below it would be missed without a word."""
    for below in folder.iterdir():
        if below.is_dir() and not below.name.startswith((".", "_")):
            for file in below.rglob("*"):
                if file.is_file() and _kind_of(file):
                    raise DataError(
                        f"{name}: {folder} has tables in folders below it, e.g. {file}; give one folder with"
                        " all of them, or the files"
                    )
    return sorted(path for path in folder.iterdir() if path.is_file() and _kind_of(path))


def _kind_of(path: Path) -> str | None:
    stem = path.name.lower().removesuffix(".gz")
    kind = next((kind for suffix, kind in SUFFIXES.items() if stem.endswith(suffix)), None)
    return kind if kind in KINDS else None


def _part_of_file(path: Path, *, name: str) -> Part:
    if not path.exists():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*")])
        raise DataError(f"{name}: no file {path}; {near or 'check the path'}")
    kind = _kind_of(path)
    if kind is None:
        raise DataError(
            f"{name}: {path} is of a kind that is not streamed; give {', '.join(KINDS)}, or open it with"
            " datasets.load_dataset(..., streaming=True) and give that"
        )
    if not path.stat().st_size:
        raise DataError(f"{name}: {path} is empty; give a file with a header and rows")
    try:
        if kind == "parquet":
            import pyarrow.parquet as pq

            columns = pq.read_schema(path).names
        else:
            with _open_text(path, kind) as reader:
                columns = reader.schema.names
    except (pa.ArrowInvalid, OSError) as error:
        what = str(error).strip().splitlines()[0]
        raise DataError(f"{name}: {path} cannot be read as {kind} ({what}); put the file right") from error
    return Part(path.name, kind, path, tuple(columns))


def _part_of_saved(path: Path, *, name: str) -> Part:
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets", extra="train") from error
    return _part_of_datasets(datasets.load_from_disk(str(path)), name=name)


def _part_of_datasets(table: Any, *, name: str) -> Part:
    if isinstance(table, dict):
        raise DataError(f"{name}: a DatasetDict with splits {sorted(table)}; give one of them")
    columns = table.column_names
    if columns is None:  # of a stream whose columns are known once a row is there
        columns = list(next(iter(table), {}))
    return Part("", "datasets", table, tuple(columns))


def batches_of(
    parts: Sequence[Part], columns: Sequence[str], *, n_rows: int
) -> Iterator[tuple[Part, int, pa.RecordBatch]]:
    """Gives each batch with its part and the number of its first row in that."""
    for part in parts:
        first = 0
        for batch in part.batches(list(dict.fromkeys(columns)), n_rows=n_rows):
            yield part, first, batch
            first += len(batch)


def check_columns(parts: Sequence[Part], columns: Sequence[str], *, name: str) -> list[DataProblem]:
    """Finds columns that a part lacks or has twice."""
    problems = []
    for part in parts:
        where = f"{name} ({part.name})" if part.name else name
        twice = sorted({column for column in part.columns if part.columns.count(column) > 1})
        if twice:
            problems.append(DataProblem(where, f"columns {twice} are there twice", "keep one of each"))
        for column in dict.fromkeys(columns):
            if column not in part.columns:
                near = did_you_mean(column, part.columns)
                hint = f"{near} (columns: {', '.join(part.columns)})".strip()
                problems.append(DataProblem(f"{where}.{column}", "no such column", hint))
    return problems


@dataclass
class Findings:
    """What is wrong with rows, gathered over all batches."""

    found: dict[tuple[str, str, str], tuple[int, list[str]]] = field(default_factory=dict)

    def add(
        self,
        where: str,
        what: str,
        fix: str,
        mask: NDArray[np.bool_],
        *,
        part: Part,
        first_row: int,
        cells: pa.Array | None = None,
    ) -> None:
        """Counts the rows of a batch where the mask is true, and notes the first of them.

        Args:
            where: the column.
            what: is wrong, e.g. `with an empty id`.
            fix: what to do.
            mask: (rows,)
            part: that the batch is of.
            first_row: number of the batch's first row in it.
            cells: shown with the rows.
        """
        count = int(mask.sum())
        if not count:
            return
        before, examples = self.found.get((where, what, fix), (0, []))
        for row in np.flatnonzero(mask)[: N_EXAMPLES - len(examples)].tolist():
            at = f"{part.name} row {first_row + row}".strip()
            text = "" if cells is None else repr(cells[row].as_py())
            examples.append(f"{at}: {text if len(text) <= 60 else text[:57] + '...'}" if text else at)
        self.found[where, what, fix] = before + count, examples

    def problems(self) -> list[DataProblem]:
        """Gives one problem a kind."""
        return [
            DataProblem(where, f"{n:,} {'row' if n == 1 else 'rows'} {what}", fix, n, tuple(examples))
            for (where, what, fix), (n, examples) in self.found.items()
        ]

    def raise_if_any(self) -> None:
        """Raises one error that lists all; see `raise_problems`."""
        raise_problems(self.problems())
