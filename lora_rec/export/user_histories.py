"""Users whose lists are asked for, block by block: their ids, and their histories as item numbers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lora_rec.bundle import file_digest
from lora_rec.data.lists import Lists
from lora_rec.data.parts import batches_of, check_columns, find_parts
from lora_rec.data.stored import ABOUT as STORED
from lora_rec.data.stored import ITEMS, OFFSETS, USERS, VALUES, StoredDataset, one_array, open_stored
from lora_rec.data.validate import raise_problems
from lora_rec.errors import DataError

if TYPE_CHECKING:
    from lora_rec.data.parts import BigSource

USER, HISTORY = "user_id", "history"


class Ranks(Protocol):
    """What lists are asked of; `Recommender` is one."""

    @property
    def item_ids(self) -> Sequence[str]:
        """Id of each item (N,)."""
        ...

    @property
    def fingerprint(self) -> str:
        """Text that another one's lists do not have."""
        ...

    @property
    def titles(self) -> Sequence[str]:
        """Title of each item (N,)."""
        ...

    def find_items(self, item_ids: Sequence[str], *, where: str) -> NDArray[np.int64]:
        """Gives the indices of item ids, or an error that starts with `where`."""
        ...

    @property
    def rank(self) -> Callable[..., tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Gives items (U, K) and scores (U, K) of U histories for `k` and settings; -1 where a list ends."""
        ...


def read_histories(
    recommender: Ranks, histories: pa.Table, *, skip_unknown: bool = False
) -> tuple[pa.Array, Lists]:
    """Gives user ids (U,) and their histories as item numbers; see `all_users.recommend_block`."""
    for name in (USER, HISTORY):
        if name not in histories.column_names:
            there = ", ".join(histories.column_names)
            raise DataError(f"users.{name}: no such column; give {USER} and {HISTORY} (columns: {there})")
    users = _as_ids(one_array(histories.column(USER)), where=f"users.{USER}")
    column = _as_lists(one_array(histories.column(HISTORY)))
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    values = _as_ids(column.flatten(), where=f"users.{HISTORY}").dictionary_encode()
    distinct = values.dictionary.to_pylist()
    numbers = values.indices.to_numpy()
    if skip_unknown:
        catalogue = pa.array(recommender.item_ids, pa.large_string())
        found = pc.index_in(pa.array(distinct, pa.large_string()), value_set=catalogue)
        places = pc.fill_null(found, -1).to_numpy().astype(np.int64)
        return users, _known_items(places[numbers], offsets)
    try:
        places = recommender.find_items(distinct, where=f"users.{HISTORY}")
    except DataError:
        for user, history in zip(users.to_pylist(), column.to_pylist(), strict=True):
            recommender.find_items([str(item) for item in history or ()], where=f"history of {user}")
        raise
    return users, Lists(places[numbers], offsets)


def _as_lists(cells: pa.Array) -> pa.Array:
    """Gives histories as Arrow's plain lists: a step of Ray in numpy leaves lists of its own kind."""
    kind = cells.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return cells
    rows = [] if pa.types.is_string(kind) else cells.to_pylist()
    is_lists = isinstance(kind, pa.BaseExtensionType) or pa.types.is_nested(kind) or pa.types.is_null(kind)
    if not is_lists or any(isinstance(row, str | bytes | dict) for row in rows):
        raise DataError(f"users.{HISTORY}: cells of type {kind}; give lists of item ids, oldest first")
    plain = pa.array([None if row is None else list(row) for row in rows])
    return plain.cast(pa.list_(pa.string())) if pa.types.is_null(plain.type) else plain


def _known_items(places: NDArray[np.int64], offsets: NDArray[np.int64]) -> Lists:
    """Gives lists without places below 0."""
    known = places >= 0
    return Lists(places[known], np.concatenate([[0], np.cumsum(known)])[offsets])


def _as_ids(ids: pa.Array, *, where: str) -> pa.Array:
    """Gives ids as strings."""
    if pa.types.is_dictionary(ids.type):
        ids = ids.dictionary_decode()
    if pa.types.is_string_view(ids.type):
        ids = ids.cast(pa.large_string())
    if not (
        pa.types.is_integer(ids.type) or pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)
    ):
        if not pa.types.is_null(ids.type) or len(ids):
            raise DataError(f"{where}: ids of type {ids.type}; give strings or whole numbers")
    if ids.null_count:
        row = int(np.argmax(ids.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(f"{where}: no id at place {row}; fill in the ids or leave those rows out")
    return ids.cast(pa.string())


def open_users(
    recommender: Ranks, users: BigSource | StoredDataset, *, users_at_once: int, skip_unknown: bool
) -> tuple[Iterable[tuple[pa.Array, Lists]], dict[str, str]]:
    """Gives the blocks of users, and what tells these users from others.

    Raises:
        DataError: a column is missing, or a stored data set has items that the recommender lacks. And, of a
            block, see `read_histories`; the file and the rows are named.
    """
    if isinstance(users, (str, os.PathLike)) and (Path(users) / STORED).exists():
        users = open_stored(Path(users))
    if isinstance(users, StoredDataset):
        names = (ITEMS, USERS, OFFSETS, VALUES)
        identity = {f"users/{name}": users.digests[name] for name in names}
        places = users.find_items_of(recommender.item_ids, skip_unknown=skip_unknown)
        return _stored_blocks(places, users, users_at_once), identity
    parts = find_parts(users, name="users")
    raise_problems(check_columns(parts, [USER, HISTORY], name="users"))
    files = [part.source for part in parts if isinstance(part.source, Path)]
    identity = {f"users/{place}": file_digest(file) for place, file in enumerate(files)}
    if not files:
        fingerprint = getattr(parts[0].source, "_fingerprint", None) or os.urandom(16).hex()
        identity = {"users": hashlib.sha256(str(fingerprint).encode()).hexdigest()}

    def read() -> Iterator[tuple[pa.Array, Lists]]:
        for part, first, batch in batches_of(parts, [USER, HISTORY], n_rows=users_at_once):
            try:
                table = pa.Table.from_batches([batch])
                yield read_histories(recommender, table, skip_unknown=skip_unknown)
            except DataError as error:
                at = f"{part.name} rows {first} to {first + len(batch) - 1}".strip()
                raise DataError(f"{at}: {error}") from error

    return read(), identity


def _stored_blocks(
    places: NDArray[np.int64], stored: StoredDataset, users_at_once: int
) -> Iterator[tuple[pa.Array, Lists]]:
    offsets, values = stored.histories.offsets, stored.histories.values
    for start in range(0, stored.n_users, users_at_once):
        ends = offsets[start : start + users_at_once + 1]
        ids = one_array(stored.user_ids.column.slice(start, len(ends) - 1))
        lists = _known_items(places[values[ends[0] : ends[-1]]], ends - ends[0])
        yield _as_ids(ids, where="users"), lists
