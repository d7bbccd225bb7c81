"""A data set on disk that is larger than memory: its arrays and texts are memory-mapped when it is opened."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lora_rec.bundle import file_digest
from lora_rec.data.dataset import Dataset
from lora_rec.data.lists import Lists
from lora_rec.errors import DataError

ABOUT, USERS, ITEMS = "stored.json", "users.arrow", "items.arrow"
OFFSETS, VALUES, TIMES, RATINGS = "offsets.npy", "values.npy", "times.npy", "ratings.npy"
FORMAT = 1
ADVICE = "write it again with lora-rec store"


class Texts(Sequence[str]):
    """Texts of a memory-mapped Arrow column; only what is asked for becomes Python strings."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        """Takes a column of strings without nulls."""
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError(f"step {step}: texts are sliced in their order alone")
            return self.column.slice(start, max(stop - start, 0)).to_pylist()
        return self.column[index].as_py()

    def __iter__(self) -> Iterator[str]:
        for chunk in self.column.iterchunks():
            for start in range(0, len(chunk), 10_000):
                yield from chunk.slice(start, 10_000).to_pylist()


@dataclass(frozen=True, eq=False)
class StoredDataset:
    """What `store.store_dataset` wrote: what a `Dataset` holds, with the interactions as histories."""

    folder: Path
    user_ids: Texts
    item_ids: Texts
    item_fields: dict[str, Texts]
    """Field name to one text per item."""
    histories: Lists
    """One list of item numbers per user, oldest first."""
    times: NDArray[np.int64] | None
    """(E,), unix seconds of `histories.values`."""
    ratings: NDArray[np.float64] | None
    """(E,)"""
    notes: tuple[str, ...]
    """What was put right when the tables were read."""
    digests: dict[str, str]
    """File to its SHA-256 when it was written, by which other contents are told."""

    @property
    def n_users(self) -> int:
        """How many users there are."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """How many items the catalogue has."""
        return len(self.item_ids)

    @property
    def n_interactions(self) -> int:
        """How many interactions there are."""
        return len(self.histories.values)

    def to_dataset(self) -> Dataset:
        """Gives it in memory, as `sources.load_dataset` would have."""
        return Dataset(
            user_ids=np.array(list(self.user_ids), np.str_),
            item_ids=np.array(list(self.item_ids), np.str_),
            item_fields={name: tuple(texts) for name, texts in self.item_fields.items()},
            users=np.repeat(np.arange(self.n_users), self.histories.counts),
            items=self.histories.values,
            times=self.times,
            ratings=self.ratings,
            notes=self.notes,
        )

    def find_items_of(self, item_ids: Sequence[str], *, skip_unknown: bool = False) -> NDArray[np.int64]:
        """Gives (n_items,), the place of each item in another catalogue's ids.

        Args:
            item_ids: of the other catalogue.
            skip_unknown: give -1 for items that it lacks.

        Raises:
            DataError: the other catalogue lacks items.
        """
        if isinstance(item_ids, Texts) and item_ids.column.equals(self.item_ids.column):
            return np.arange(self.n_items)  # without a table of all ids in memory
        others = item_ids.column if isinstance(item_ids, Texts) else pa.array(item_ids, pa.large_string())
        places = pc.index_in(self.item_ids.column, value_set=one_array(others))
        if places.null_count and not skip_unknown:
            missing = self.item_ids.column.filter(pc.is_null(places))
            raise DataError(
                f"{self.folder}: {len(missing):,} items are not in the bundle, e.g. {missing[0].as_py()!r};"
                " store the interactions of the bundle's items"
            )
        return pc.fill_null(places, -1).to_numpy().astype(np.int64)


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Gives the chunks of a column as one array, also where there is none."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()  # which gives chunks again where one is too long
    return column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)


def open_stored(folder: str | Path) -> StoredDataset:
    """Opens what `store_dataset` wrote; arrays and texts stay on disk until they are read.

    Raises:
        DataError: there is none, it is of another format, or a file is missing or has another size.
    """
    root = Path(folder)
    try:
        about = json.loads((root / ABOUT).read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise DataError(f"{root / ABOUT}: of format {about['format']}, not {FORMAT}; {ADVICE}")
        for name, file in about["files"].items():
            if (root / name).stat().st_size != file["bytes"]:
                raise DataError(f"{root / name}: not the {file['bytes']:,} bytes that were written; {ADVICE}")
        users, items = (_open_texts(root / name) for name in (USERS, ITEMS))
        numbers = {
            name: np.load(root / name, mmap_mode="r", allow_pickle=False)
            for name in (OFFSETS, VALUES, TIMES, RATINGS)
            if name in about["files"]
        }
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: no such file; {ADVICE}") from error
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(f"{root}: does not read ({error}); {ADVICE}") from error
    return StoredDataset(
        folder=root,
        user_ids=users[0],
        item_ids=items[0],
        item_fields=dict(zip(about["fields"], items[1:], strict=True)),
        histories=Lists(numbers[VALUES], numbers[OFFSETS]),
        times=numbers.get(TIMES),
        ratings=numbers.get(RATINGS),
        notes=tuple(about["notes"]),
        digests={name: file["sha256"] for name, file in about["files"].items()},
    )


def _open_texts(path: Path) -> list[Texts]:
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    return [Texts(column) for column in table.columns]


def write_about(folder: Path, *, fields: Sequence[str], notes: Sequence[str]) -> None:
    """Writes what the files of a folder are, once all of them are there."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.iterdir())
    }
    about = {"format": FORMAT, "fields": list(fields), "notes": list(notes), "files": files}
    (folder / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")


class ArrayWriter:
    """Writes a flat .npy file piece by piece; its length need not be known before."""

    def __init__(self, path: Path, dtype: type) -> None:
        """Opens the file."""
        self._file: BinaryIO = path.open("wb")
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._write_header()

    def _write_header(self) -> None:
        # numpy leaves room in the header for a longer length, so that it can be written again in its place.
        about: dict[str, Any] = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._length,)}
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, about)

    def append(self, values: NDArray[Any]) -> None:
        """Adds values at the end."""
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).data)
        self._length += len(values)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write_header()
        finally:
            self._file.close()
