"""The way to Milvus: connection, errors, and which collection a name stands for.

A name is an alias; the collection behind it is called NAME__VECTORS_DIGEST_TIME, from which it is told what
it holds, since the embedded Milvus keeps no description.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from lora_rec.errors import DataError, LoraRecError, did_you_mean, missing_extra
from lora_rec.rank.ranker import Recommender

Vectors = Literal["head", "towers"]
VECTORS: tuple[str, ...] = get_args(Vectors)
"""`head`: what the ranking head multiplies, see `rank.inner_product`, by which the lists are those of
`recommend`; `towers`: the item tower's vectors, for those of the user tower, `LoadedTowers.encode_users`."""
Index = Literal["FLAT", "HNSW", "IVF_FLAT", "AUTOINDEX"]
INDICES: tuple[str, ...] = get_args(Index)
"""As Milvus names them. FLAT is exact, the others are faster among millions; AUTOINDEX lets Milvus choose."""
ITEM_ID, VECTOR = "item_id", "vector"
_SOURCES = {"head": "head.safetensors", "towers": "item_vectors.npy"}


@contextmanager
def connect(uri: str, *, token: str | None, database: str, timeout: float) -> Iterator[Any]:
    """Gives a client, and what goes wrong with it as one error; it is closed at the end.

    Raises:
        LoraRecError: pymilvus or Milvus Lite is not installed, or Milvus cannot be reached or refuses.
    """
    client = open_client(uri, token=token, database=database, timeout=timeout)
    try:
        with errors_of(uri):
            yield client
    finally:
        client.close()


def open_client(uri: str, *, token: str | None, database: str, timeout: float) -> Any:
    """Gives a client that the caller closes; see `connect`."""
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise missing_extra("pymilvus", extra="milvus") from error
    if "://" not in uri:
        try:
            import milvus_lite  # noqa: F401
        except ImportError as error:
            raise missing_extra("milvus_lite", extra="milvus") from error
    with errors_of(uri):
        return MilvusClient(uri, token=token or "", db_name=database, timeout=timeout)


@contextmanager
def errors_of(uri: str) -> Iterator[None]:
    """Makes Milvus's errors the project's; a password in the address is not shown."""
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        parts = urlsplit(uri)
        shown = uri.replace(parts.netloc, parts.netloc.rpartition("@")[2]) if parts.netloc else uri
        reason = (error.message or str(error)).splitlines()[0].replace(uri, shown)
        raise LoraRecError(
            f"milvus at {shown}: {reason}; an address is a file that ends in .db or http://HOST:19530, and a"
            " server may want a token"
        ) from None  # the chain would show the address as it was given


def check_choice(where: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses what is none of the choices."""
    if value not in choices:
        hint = did_you_mean(value, choices) or f"use one of {', '.join(choices)}"
        raise DataError(f"{where}: {value!r} is unknown; {hint}")


def source_prefix(rec: Recommender, collection: str, vectors: str) -> str:
    """Gives how the name of a collection of a bundle's vectors begins.

    Raises:
        DataError: no such vectors.
    """
    check_choice("vectors", vectors, VECTORS)
    return f"{collection}__{vectors}_{rec.manifest.files[_SOURCES[vectors]][:16]}_"


def own_collections(client: Any, collection: str) -> list[str]:
    """Gives the collections that were written for a name."""
    own = re.compile(rf"{collection}__({'|'.join(VECTORS)})_[0-9a-f]{{16}}_[0-9a-f]+")
    return [name for name in client.list_collections() if own.fullmatch(name)]


def find_target(client: Any, collection: str) -> str | None:
    """Gives the collection that a name stands for; None where it stands for nothing.

    Raises:
        DataError: it is not an alias of what was written here.
    """
    if collection in client.list_collections():
        raise DataError(
            f"collection: {collection!r} is there and was not written by lora_rec; give another name"
        )
    if not client.has_collection(collection):
        return None
    target = str(client.describe_alias(alias=collection)["collection_name"])
    if target not in own_collections(client, collection):
        raise DataError(
            f"collection: {collection!r} stands for {target!r}, which lora_rec did not write; give another"
            " name"
        )
    return target
