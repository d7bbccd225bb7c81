"""Lists for all users, block by block: histories in, tables of recommended items out. Without torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lora_rec.bundle import check_output, file_digest
from lora_rec.data.lists import Lists
from lora_rec.data.parts import (
    Progress,
    batches_of,
    check_columns,
    find_parts,
    without_progress,
)
from lora_rec.data.stored import ABOUT as STORED
from lora_rec.data.stored import ITEMS, OFFSETS, USERS, VALUES, StoredDataset, one_array, open_stored
from lora_rec.data.validate import raise_problems
from lora_rec.errors import DataError
from lora_rec.export.blocks import Blocks

if TYPE_CHECKING:
    from lora_rec.data.parts import BigSource

USER, HISTORY = "user_id", "history"
USERS_AT_ONCE = 10_000
ABOUT = "_lists.json"
"""In the folder of the lists: how many there are, and what they are made of. What reads a folder of Parquet
files leaves out names that begin like this."""
LISTS_SCHEMA = pa.schema(
    {"user_id": pa.string(), "rank": pa.int32(), "item_id": pa.string(), "score": pa.float32()}
    | {"title": pa.string()}
)
"""What `recommend_block` gives: the columns of `RecommendationTable`, one row per recommended item."""


class Ranks(Protocol):
    """What lists are asked of; `Recommender` is one."""

    @property
    def item_ids(self) -> Sequence[str]:
        """Id of each item (N,)."""
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


def recommend_block(recommender: Ranks, histories: pa.Table, *, k: int = 10, **settings: Any) -> pa.Table:
    """Gives the lists of one block of users.

    Args:
        recommender: what `lora_rec.load` gives.
        histories: columns `user_id` and `history`, a list of item ids, oldest first; ids are strings or
            whole numbers.
        k: list length.
        settings: as `Recommender.rank` takes them, e.g. `diversity`, `exclude`, `quotas`. An `explore` is
            drawn anew from `seed` in each block.

    Returns:
        A table of `LISTS_SCHEMA`, users in the order given.

    Raises:
        DataError: a column is missing or of another type, an id is missing or unknown, or a history is empty;
            the user is named.
    """
    users, lists = read_histories(recommender, histories)
    return rank_block(recommender, users, lists, k=k, **settings)


def rank_block(recommender: Ranks, users: pa.Array, histories: Lists, *, k: int, **settings: Any) -> pa.Table:
    """Gives the lists of users whose histories are item numbers already; see `recommend_block`."""
    items, scores = recommender.rank(histories, k=k, **settings)
    there = items >= 0
    rows, places = np.nonzero(there)
    chosen = items[there].tolist()
    ids, titles = recommender.item_ids, recommender.titles
    columns = {
        "user_id": users.take(pa.array(rows)),
        "rank": places.astype(np.int32) + np.int32(1),
        "item_id": [ids[item] for item in chosen],
        "score": scores[there].astype(np.float32),
        "title": [titles[item] for item in chosen],
    }
    return pa.table(columns, schema=LISTS_SCHEMA)


def read_histories(recommender: Ranks, histories: pa.Table) -> tuple[pa.Array, Lists]:
    """Gives user ids (U,) and their histories as item numbers; see `recommend_block`."""
    for name in (USER, HISTORY):
        if name not in histories.column_names:
            there = ", ".join(histories.column_names)
            raise DataError(f"users.{name}: no such column; give {USER} and {HISTORY} (columns: {there})")
    users = _as_ids(one_array(histories.column(USER)), where=f"users.{USER}")
    column = one_array(histories.column(HISTORY))
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise DataError(f"users.{HISTORY}: cells of type {column.type}; give lists of item ids, oldest first")
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    if not counts.all():
        user = users[int(np.argmin(counts))]
        raise DataError(f"users.{HISTORY}: that of {user.as_py()!r} is empty; leave such users out")
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    values = _as_ids(column.flatten(), where=f"users.{HISTORY}").dictionary_encode()
    distinct = values.dictionary.to_pylist()
    if not distinct:
        return users, Lists(np.empty(0, np.int64), offsets)
    try:
        places = recommender.find_items(distinct, where=f"users.{HISTORY}")
    except DataError:
        for user, history in zip(users.to_pylist(), column.to_pylist(), strict=True):
            recommender.find_items([str(item) for item in history], where=f"history of {user}")
        raise
    return users, Lists(places[values.indices.to_numpy()], offsets)


def _as_ids(ids: pa.Array, *, where: str) -> pa.Array:
    """Gives ids as strings."""
    if pa.types.is_dictionary(ids.type):
        ids = ids.dictionary_decode()
    if not (
        pa.types.is_integer(ids.type) or pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)
    ):
        if not pa.types.is_null(ids.type) or len(ids):
            raise DataError(f"{where}: ids of type {ids.type}; give strings or whole numbers")
    if ids.null_count:
        row = int(np.argmax(ids.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(f"{where}: no id at place {row}; fill in the ids or leave those rows out")
    return ids.cast(pa.string())


def check_settings_of_all(users_at_once: int | None, settings: Mapping[str, Any]) -> None:
    """Refuses what would write no lists, or wrong ones.

    Raises:
        DataError: blocks of no users, or vectors that every block would take for its own.
    """
    if users_at_once is not None and users_at_once < 1:
        raise DataError(f"users_at_once: {users_at_once} users in a block; give 1 or more")
    if settings.get("user_embeddings") is not None:
        raise DataError(
            "user_embeddings: every block would take the first ones for its own users; leave them out, or"
            " call recommend_block with those of each block"
        )


@dataclass(frozen=True)
class AllLists:
    """What `recommend_all` wrote."""

    folder: Path
    n_users: int
    n_rows: int
    n_blocks: int
    n_kept: int
    """Blocks that an earlier call had finished."""


def recommend_all(
    recommender: Ranks,
    users: BigSource | StoredDataset,
    output: str | Path,
    *,
    made_of: Mapping[str, str],
    k: int = 10,
    users_at_once: int = USERS_AT_ONCE,
    progress: Progress = without_progress,
    **settings: Any,
) -> AllLists:
    """Writes the lists of all users as Parquet files, one for each block of users.

    Neither users nor lists need fit in memory. A call after a kill keeps the blocks that are finished, once
    their hashes agree, but of an `IterableDataset`, which nothing tells from another. The folder appears by
    one rename when it is whole.

    Args:
        recommender: what `lora_rec.load` gives.
        users: a stored data set or its folder, or tables as `parts.find_parts` takes them with the columns
            `user_id` and `history` (Parquet, or of `datasets`).
        output: a new folder, or one of older lists, which is replaced.
        made_of: what decides the lists beside the users, e.g. the hash of the bundle.
        k: list length.
        users_at_once: in a block and in a file.
        progress: wraps the blocks.
        settings: see `recommend_block`.

    Raises:
        DataError: see `recommend_block`; the file and the rows of the block are named. Or `users_at_once` is
            below 1, or there are `user_embeddings`, which no block would find its own among.
        BundleError: `output` is something else, or cannot be written.
    """
    check_settings_of_all(users_at_once, settings)
    target = check_output(output, marker=ABOUT, what="folder of lists")
    blocks_of, identity = _open_users(recommender, users, users_at_once=users_at_once)
    about = dict(made_of) | identity | {"k": k, "users_at_once": users_at_once} | settings
    with Blocks(target, json.loads(json.dumps(about, default=_plain))) as blocks:
        n_users = n_rows = n_blocks = n_kept = 0
        for block, (ids, histories) in enumerate(progress(blocks_of, "users")):
            file = blocks.folder / f"lists-{block:06d}.parquet"
            if file.exists() and blocks.digest(block) == file_digest(file):
                n_kept += 1
            else:
                _write_parquet(rank_block(recommender, ids, histories, k=k, **settings), file)
                blocks.note(block, file_digest(file))
            n_rows += _count_rows(file)
            n_users, n_blocks = n_users + len(ids), n_blocks + 1
        counts = {"n_users": n_users, "n_rows": n_rows, "n_blocks": n_blocks}
        (blocks.folder / ABOUT).write_text(
            json.dumps(about | counts, indent=1, default=_plain), encoding="utf-8"
        )
        blocks.finish(target)
    return AllLists(target, n_users, n_rows, n_blocks, n_kept)


def _plain(value: Any) -> Any:
    """Gives a setting whole: numpy shortens the text of a long array, and two would look alike."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _write_parquet(table: pa.Table, file: Path) -> None:
    import pyarrow.parquet as pq

    scratch = file.with_suffix(".part")
    try:
        pq.write_table(table, scratch, compression="zstd")
        with scratch.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(scratch, file)
    except OSError as error:
        raise DataError(
            f"{file}: cannot be written ({error}); free space: a later call goes on behind what is finished"
        ) from error


def _count_rows(file: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(file).num_rows


def _open_users(
    recommender: Ranks, users: BigSource | StoredDataset, *, users_at_once: int
) -> tuple[Iterable[tuple[pa.Array, Lists]], dict[str, str]]:
    """Gives the blocks of users, and what tells these users from others."""
    if isinstance(users, (str, os.PathLike)) and (Path(users) / STORED).exists():
        users = open_stored(Path(users))
    if isinstance(users, StoredDataset):
        names = (ITEMS, USERS, OFFSETS, VALUES)
        identity = {f"users/{name}": users.digests[name] for name in names}
        return _stored_blocks(recommender, users, users_at_once), identity
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
                yield read_histories(recommender, pa.Table.from_batches([batch]))
            except DataError as error:
                at = f"{part.name} rows {first} to {first + len(batch) - 1}".strip()
                raise DataError(f"{at}: {error}") from error

    return read(), identity


def _stored_blocks(
    recommender: Ranks, stored: StoredDataset, users_at_once: int
) -> Iterator[tuple[pa.Array, Lists]]:
    places = stored.find_items_of(recommender.item_ids)
    offsets, values = stored.histories.offsets, stored.histories.values
    for start in range(0, stored.n_users, users_at_once):
        ends = offsets[start : start + users_at_once + 1]
        ids = one_array(stored.user_ids.column.slice(start, len(ends) - 1))
        lists = Lists(places[values[ends[0] : ends[-1]]], ends - ends[0])
        yield _as_ids(ids, where="users"), lists
