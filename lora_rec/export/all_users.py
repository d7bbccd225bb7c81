"""Lists for blocks of users: a table of histories in, a table of recommended items out. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import DataError

USER, HISTORY = "user_id", "history"
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

    def rank(
        self, histories: Lists, *, k: int, **settings: Any
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Gives items (U, K) and scores (U, K); -1 where a list ends early."""
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
    users = _as_ids(_one_array(histories.column(USER)), where=f"users.{USER}")
    column = _one_array(histories.column(HISTORY))
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


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    chunk = column.combine_chunks()
    return chunk if isinstance(chunk, pa.Array) else pa.concat_arrays(chunk.chunks)


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
