"""Lists of a bundle whose items are in Milvus."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.errors import DataError, LoraRecError
from lora_rec.export.milvus.client import (
    ITEM_ID,
    VECTOR,
    Vectors,
    errors_of,
    find_target,
    open_client,
    own_collections,
    source_prefix,
)
from lora_rec.rank.check import check_length
from lora_rec.rank.inner_product import HeadVectors
from lora_rec.rank.ranker import Recommender
from lora_rec.rank.search import check_finite

if TYPE_CHECKING:
    from typing_extensions import Self

MOST = 16_384
"""Items that Milvus gives in one search."""


@dataclass(frozen=True, eq=False)
class MilvusItems:
    """A bundle's items in Milvus, open for search. Close it, or use it in a `with`.

    It goes on with the items that it was opened with when others are exported under the name, until the
    export after that one drops them.
    """

    rec: Recommender
    parts: HeadVectors | None
    """None where the vectors are the item tower's."""
    collection: str
    """The name, an alias."""
    written: str
    """The collection that it stood for when this was opened."""
    uri: str
    _client: Any

    def recommend(
        self, histories: Sequence[Sequence[str]], *, k: int = 10, filter: str = ""
    ) -> list[list[tuple[str, float]]]:
        """Gives the lists of `Recommender.recommend` without diversity, as item ids and scores, best first.

        With an index that is not exact, an item may be missed.

        Args:
            histories: item ids of each user, oldest first.
            k: list length.
            filter: which items are given, as Milvus writes it: `array_contains(genres, "War")`.

        Raises:
            ArgumentError: `k` is no length of a list.
            DataError: an id is unknown, the vectors are the towers', or the items were dropped meanwhile.
            LoraRecError: Milvus fails, e.g. by a filter that it cannot read.
        """
        check_length(k)
        if self.parts is None:
            raise DataError("milvus: these are the item tower's vectors; call search with the user tower's")
        lists = self.rec.find_histories({str(n): h for n, h in enumerate(histories)}, None)
        items, scores = self.parts.top_k(
            lists,
            k=k,
            search=lambda users, n: self.search(users, k=n, filter=filter),
            allow=(lambda found: self._pass(found, filter)) if filter else None,
            most=MOST,
        )
        ids = self.rec.item_ids
        return [
            [(ids[item], float(score)) for item, score in zip(*row, strict=True) if item >= 0]
            for row in zip(items, scores, strict=True)
        ]

    def search(
        self, user_vectors: NDArray[np.float32], *, k: int, filter: str = ""
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Gives items (U, K) and scores (U, K) by inner product with vectors (U, V), as `rank.search.top_k`.

        Args:
            user_vectors: `rank.inner_product.HeadVectors.users` gives them, `LoadedTowers.encode_users` the
                towers' ones.
            k: list length, 16,384 at most.
            filter: see `recommend`.

        Raises:
            ArgumentError: `k` is no length of a list, or a value is not finite.
            LoraRecError: see `recommend`.
        """
        check_length(k)
        check_finite(np.asarray(user_vectors, dtype=np.float32))
        k = min(k, len(self.rec.item_ids), MOST)
        items = np.full((len(user_vectors), k), -1, dtype=np.int64)
        scores = np.full((len(user_vectors), k), -np.inf, dtype=np.float32)
        queries = list(np.asarray(user_vectors, dtype=np.float32))
        with self._errors():
            found = (
                self._client.search(self.written, queries, filter, limit=k, anns_field=VECTOR)
                if queries
                else []
            )
        for row, hits in enumerate(found):
            items[row, : len(hits)] = [self.rec.positions[hit[ITEM_ID]] for hit in hits]
            scores[row, : len(hits)] = [hit["distance"] for hit in hits]
        return items, scores

    def _pass(self, items: NDArray[np.int64], filter: str) -> NDArray[np.bool_]:
        """Gives which items a filter lets through."""
        ids = [self.rec.item_ids[item] for item in items]
        asked = f"({filter}) and {ITEM_ID} in {json.dumps(ids, ensure_ascii=False)}"
        with self._errors():
            rows = self._client.query(self.written, filter=asked, output_fields=[ITEM_ID])
        return np.isin(items, [self.rec.positions[row[ITEM_ID]] for row in rows])

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with errors_of(self.uri):
                yield
        except LoraRecError as error:
            with errors_of(self.uri):
                there = own_collections(self._client, self.collection)
            if self.written in there:
                raise
            raise DataError(
                f"milvus: the items of {self.collection!r} that were opened here are replaced and dropped;"
                " open it again with the bundle that was exported"
            ) from error

    def close(self) -> None:
        """Lets go of the file or the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_milvus(
    rec: Recommender,
    *,
    uri: str,
    collection: str,
    vectors: Vectors = "head",
    token: str | None = None,
    database: str = "",
    timeout: float = 30.0,
) -> MilvusItems:
    """Opens what `export_to_milvus` wrote.

    Args:
        rec: the bundle that was exported.
        uri: see `export_to_milvus`, as for those that follow.
        collection: its name.
        vectors: which it shall hold.
        token: where the server wants one.
        database: of the server.
        timeout: of the connection, in seconds.

    Raises:
        DataError: there is no such collection, or it is of another bundle or holds the other vectors.
        LoraRecError: see `export_to_milvus`.
    """
    prefix = source_prefix(rec, collection, vectors)
    parts = HeadVectors(rec.head) if vectors == "head" else None
    client = open_client(uri, token=token, database=database, timeout=timeout)
    try:
        with errors_of(uri):
            target = find_target(client, collection)
        if target is None:
            raise DataError(f"milvus: there is no collection {collection!r}; write it: lora-rec milvus")
        if not target.startswith(prefix):
            raise DataError(
                f"milvus: {collection!r} does not hold the vectors {vectors!r} of this bundle; write it anew:"
                " lora-rec milvus"
            )
        with errors_of(uri):  # Milvus Lite forgets that it was loaded when the file is closed
            client.load_collection(target, timeout=timeout)
    except BaseException:
        client.close()
        raise
    return MilvusItems(rec, parts, collection, target, uri, client)
