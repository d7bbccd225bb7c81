"""Lists for all users, block by block: histories in, tables of recommended items out. Without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lora_rec.bundle import check_output, file_digest
from lora_rec.data.lists import Lists
from lora_rec.data.parts import Progress, without_progress
from lora_rec.data.stored import StoredDataset
from lora_rec.errors import DataError
from lora_rec.export.blocks import Blocks
from lora_rec.export.user_histories import Ranks, open_users, read_histories
from lora_rec.rank.check import check_length

if TYPE_CHECKING:
    from lora_rec.data.parts import BigSource

USERS_AT_ONCE = 10_000
ABOUT = "_lists.json"
"""In the folder of the lists: how many there are, and what they are made of. What reads a folder of Parquet
files leaves out names that begin like this."""
LISTS_SCHEMA = pa.schema(
    {"user_id": pa.string(), "rank": pa.int32(), "item_id": pa.string(), "score": pa.float32()}
    | {"title": pa.string()}
)
"""What `recommend_block` gives: the columns of `RecommendationTable`, one row per recommended item."""


def recommend_block(
    recommender: Ranks, histories: pa.Table, *, k: int = 10, skip_unknown: bool = False, **settings: Any
) -> pa.Table:
    """Gives the lists of one block of users.

    Args:
        recommender: what `lora_rec.load` gives.
        histories: columns `user_id` and `history`, a list of item ids, oldest first; ids are strings or
            whole numbers. Somebody new has an empty list, or none.
        k: list length.
        skip_unknown: leave items out that the bundle does not know.
        settings: as `Recommender.rank` takes them, e.g. `diversity`, `exclude`, `quotas`. An `explore` is
            drawn anew from `seed` in each block.

    Returns:
        A table of `LISTS_SCHEMA`, users in the order given.

    Raises:
        DataError: a column is missing or of another type, or an id is missing or unknown; the user is named.
    """
    users, lists = read_histories(recommender, histories, skip_unknown=skip_unknown)
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


def check_settings_of_all(k: int, users_at_once: int | None, settings: Mapping[str, Any]) -> None:
    """Refuses what would write no lists, or wrong ones.

    Raises:
        ArgumentError: `k` is no length of a list.
        DataError: blocks of no users, or vectors that every block would take for its own.
    """
    check_length(k)
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
    k: int = 10,
    skip_unknown: bool = False,
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
        k: list length.
        skip_unknown: see `recommend_block`; of a stored data set, items that the bundle lacks.
        users_at_once: in a block and in a file.
        progress: wraps the blocks.
        settings: see `recommend_block`.

    Raises:
        DataError: see `recommend_block`; the file and the rows of the block are named. Or `users_at_once` is
            below 1, or there are `user_embeddings`, which no block would find its own among.
        BundleError: `output` is something else, or cannot be written.
    """
    check_settings_of_all(k, users_at_once, settings)
    target = check_output(output, marker=ABOUT, what="folder of lists")
    blocks_of, identity = open_users(
        recommender, users, users_at_once=users_at_once, skip_unknown=skip_unknown
    )
    own = {"k": k, "users_at_once": users_at_once, "skip_unknown": skip_unknown}
    about = {"recommender": recommender.fingerprint} | identity | own | settings
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
        if not n_users:
            raise DataError("users: there are none, so there are no lists; nothing was written")
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
