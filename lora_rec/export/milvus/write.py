"""Writes a bundle's items into a new collection, then puts it in the place of the one before."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.errors import DataError, LoraRecError, did_you_mean
from lora_rec.export.milvus.client import (
    INDICES,
    ITEM_ID,
    VECTOR,
    Index,
    Vectors,
    check_choice,
    connect,
    find_target,
    own_collections,
    source_prefix,
)
from lora_rec.rank.inner_product import HeadVectors
from lora_rec.rank.ranker import Recommender

MOST_BYTES = 65_535  # of a VARCHAR
MOST_VALUES = 4096  # of an ARRAY
BYTES_AT_ONCE = 8 << 20  # in one call; a server takes 64 MB
INDEX_SETTINGS: dict[str, dict[str, int]] = {
    "HNSW": {"M": 16, "efConstruction": 200},
    "IVF_FLAT": {"nlist": 1024},
}
_VectorsOf = Callable[[NDArray[np.int64]], NDArray[np.float32]]
_Columns = dict[str, list[str] | list[list[str]]]


@dataclass(frozen=True)
class MilvusExport:
    """What was written."""

    collection: str
    """The alias, by which it is searched."""
    written: str
    """The collection that it stands for."""
    n_items: int
    width: int
    fields: tuple[str, ...]
    """Item fields that filters can name."""


def export_to_milvus(
    rec: Recommender,
    *,
    uri: str,
    collection: str,
    vectors: Vectors = "head",
    fields: Sequence[str] | None = None,
    index: Index = "FLAT",
    token: str | None = None,
    database: str = "",
    timeout: float = 30.0,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> MilvusExport:
    """Writes the items of a bundle, whole or not at all: a search sees the old ones or the new, never a part.

    The items before stay beside the new ones, for those who have them open, until the next export. It drops
    them, and what an export that was killed left of the same name, so two at once of one name disturb each
    other.

    Args:
        rec: what `lora_rec.load` gives.
        uri: a file ending in .db, for the embedded Milvus Lite, or the address of a server, http://HOST:19530.
        collection: name by which the items are searched from then on.
        vectors: which, see `client.VECTORS`.
        fields: item fields for filters; the title and the bundle's categories when left out. Categories
            become an array of texts, every other field a text.
        index: see `client.INDICES`.
        token: USER:PASSWORD or a key, where the server wants one.
        database: of the server; its default when empty.
        timeout: of a call, in seconds.
        progress: wraps the first items of the batches.

    Raises:
        DataError: a name, a field or a value is none that Milvus takes, or the name stands for something else
            or for vectors of another width.
        LoraRecError: pymilvus or Milvus Lite is not installed, or Milvus cannot be reached, refuses, or loses
            items; what the name stood for is as it was.
        BundleError: the bundle orders shown lists and has no head.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", collection):
        raise DataError(f"collection: {collection!r} is no name; use up to 100 letters, digits and _")
    check_choice("index", index, INDICES)
    name = f"{source_prefix(rec, collection, vectors)}{time.time_ns():x}"
    columns = _columns(rec, fields)
    width, vectors_of = _vectors(rec, vectors)
    n_items = len(rec.item_ids)
    with connect(uri, token=token, database=database, timeout=timeout) as client:
        before = find_target(client, collection)
        if before is not None:
            _check_width(client, before, collection, width)
        for left in set(own_collections(client, collection)) - {before}:
            client.drop_collection(left)
        try:
            _create(client, name, rec.item_ids, columns, width=width, index=index)
            n_rows = max(1, BYTES_AT_ONCE // (4 * width + 1000))
            for start in progress(range(0, n_items, n_rows)):
                rows = np.arange(start, min(start + n_rows, n_items))
                batch = list(_rows(rec.item_ids, columns, rows, vectors_of(rows)))
                client.insert(name, batch, timeout=timeout)
            client.flush(name)
            _check_whole(client, name, n_items)
            if before is None:
                client.create_alias(collection_name=name, alias=collection)
            else:
                client.alter_alias(collection_name=name, alias=collection)
        except BaseException:
            _drop_unused(client, name, collection)
            raise
    return MilvusExport(collection, name, n_items, width, tuple(columns))


def _vectors(rec: Recommender, vectors: str) -> tuple[int, _VectorsOf]:
    """Gives the width and what gives the vectors of some items."""
    if vectors == "towers":
        return rec.item_vectors.shape[1], lambda rows: rec.item_vectors[rows]
    parts = HeadVectors(rec.head)
    return parts.width, parts.items


def _columns(rec: Recommender, fields: Sequence[str] | None) -> _Columns:
    """Gives the values of the chosen fields."""
    known, ranking = rec.item_fields, rec.manifest.ranking
    if fields is None:
        fields = [name for name in ("title", ranking.category_field) if name in known]
    columns: _Columns = {}
    for name in dict.fromkeys(fields):
        if name not in known:
            hint = did_you_mean(name, known) or f"the items have: {', '.join(known) or 'none'}"
            raise DataError(f"fields: there is no field {name!r}; {hint}")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name) or name in (ITEM_ID, VECTOR):
            raise DataError(f"fields: {name!r} cannot be a field of Milvus; leave it out")
        texts = known[name]
        if name == ranking.category_field:
            parts = [text.split(ranking.category_separator) for text in texts]
            columns[name] = [list(dict.fromkeys(p.strip() for p in row if p.strip())) for row in parts]
        else:
            columns[name] = texts
    return columns


def _create(client: Any, name: str, ids: Sequence[str], columns: _Columns, *, width: int, index: str) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    longest = _longest(ids, where=ITEM_ID)
    schema.add_field(ITEM_ID, DataType.VARCHAR, is_primary=True, max_length=longest)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=width)
    for field, values in columns.items():
        if any(isinstance(value, list) for value in values):
            most = max(1, max(map(len, values)))
            if most > MOST_VALUES:
                raise DataError(
                    f"fields.{field}: {most:,} categories in one item; Milvus holds {MOST_VALUES:,}"
                )
            schema.add_field(
                field,
                DataType.ARRAY,
                element_type=DataType.VARCHAR,
                max_capacity=most,
                max_length=_longest([part for row in values for part in row], where=f"fields.{field}"),
            )
        else:
            longest = _longest(values, where=f"fields.{field}")
            schema.add_field(field, DataType.VARCHAR, max_length=longest)
    indices = client.prepare_index_params()
    indices.add_index(VECTOR, index_type=index, metric_type="IP", params=INDEX_SETTINGS.get(index, {}))
    client.create_collection(name, schema=schema, index_params=indices)


def _longest(texts: Iterable[Any], *, where: str) -> int:
    """Gives the bytes of the longest text, at least 1."""
    longest = max((len(text.encode()) for text in texts), default=0)
    if longest > MOST_BYTES:
        raise DataError(f"{where}: a text of {longest:,} bytes; Milvus holds {MOST_BYTES:,}: leave it out")
    return max(1, longest)


def _rows(
    ids: Sequence[str], columns: _Columns, rows: NDArray[np.int64], vectors: NDArray[np.float32]
) -> Iterator[dict[str, Any]]:
    for row, vector in zip(rows.tolist(), vectors, strict=True):
        yield {ITEM_ID: ids[row], VECTOR: vector} | {name: values[row] for name, values in columns.items()}


def _check_width(client: Any, before: str, collection: str, width: int) -> None:
    """Refuses a change under those who search with vectors of the old width."""
    there = {field["name"]: field["params"] for field in client.describe_collection(before)["fields"]}
    if int(there[VECTOR]["dim"]) != width:
        raise DataError(
            f"collection: {collection!r} holds vectors {there[VECTOR]['dim']} wide, and these are {width};"
            " give another name, or drop it first"
        )


def _check_whole(client: Any, name: str, n_items: int) -> None:
    counted = client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")
    if (there := int(counted[0]["count(*)"])) != n_items:
        raise LoraRecError(f"milvus: {there:,} of {n_items:,} items arrived; nothing was replaced, try again")


def _drop_unused(client: Any, name: str, collection: str) -> None:
    """Drops what was begun, unless the name stands for it already or Milvus is gone."""
    from pymilvus.exceptions import MilvusException

    try:
        if name in client.list_collections() and find_target(client, collection) != name:
            client.drop_collection(name)
    except (MilvusException, DataError):
        pass  # the next export does it; the error that led here says more
