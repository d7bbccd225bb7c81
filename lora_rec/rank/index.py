"""Search over many item vectors by an embedded index that is memory-mapped when read: nearly exact, or exact.

An inverted file of faiss: vectors are parted into cells around centres, and a search looks into the cells
nearest to it. How many is chosen when the index is made, so that a wished share of the exact list is found.
By benchmarks/search_speed.py it is faster than a graph (HNSW, of faiss or of usearch) of the same recall on
vectors that lie in clusters, as items do.

A value is kept in one byte, so a search reads a quarter of the vectors' bytes; what it finds is scored anew
by the vectors themselves. How far a coded vector lies from its own is measured when the index is made, and no
score is farther off than that times the length of the user's vector. So a search through all cells proves its
list: it is exact where the last candidate of the codes, raised by so much, stays below the list's last score,
and more candidates are asked for where it does not. (Filter and refine by bounds, as in the VA-file of Weber,
Schek and Blott, VLDB 1998.) Extra `ann`. `rank.search.top_k` is the exact search that needs no index.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import ArgumentError, DataError, missing_extra
from lora_rec.rank.check import check_length
from lora_rec.rank.search import check_finite, top_k

INDEX, ABOUT = "index.faiss", "index.json"
PROBED_K = 100
GROWTH = 4
"""By which a search asks for more: an exact one where a list is not proven yet, another where it is short."""
LARGEST_SHARE = 8
"""Above the catalogue over this, all vectors are read instead."""
ITEMS_AT_ONCE = 1 << 16
_Array = NDArray[np.float32]


@dataclass(frozen=True)
class IndexAbout:
    """What an index is of and how well it finds."""

    n_items: int
    width: int
    digest: str
    """Of a sample of the vectors, by which others are told."""
    n_cells: int
    n_probes: int
    """Cells that a search looks into."""
    recall: float
    """Share of the exact 100 best that it finds, mean over the queries that it was made with."""
    n_candidates: int
    """Codes whose own vectors are scored, for each place in a list; for an exact one, twice as many."""
    code_error: float
    """By how much the score of an item's code can be off, for a user's vector of length 1."""


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """An index, open for search."""

    about: IndexAbout
    _index: Any
    _vectors: _Array

    def search(
        self, user_vectors: _Array, *, k: int, exclude: Lists | None = None, exact: bool = False
    ) -> tuple[NDArray[np.int64], _Array]:
        """Gives the best items of each user by dot product: nearly, or exactly.

        Args:
            user_vectors: (U, D).
            k: list length; at most N are given. More than PROBED_K look into more cells.
            exclude: U lists of items that are left out.
            exact: look into all cells, and as far as it takes to know that nothing better is left.

        Returns:
            Items (U, K) and scores (U, K) as `search.top_k` gives them; -1 and -inf where fewer are left.

        Raises:
            ArgumentError: a value is not finite, or shapes or `k` do not fit.
        """
        queries = np.ascontiguousarray(user_vectors, dtype=np.float32)
        _check(queries, self.about.width, k, exclude)
        n_items, k = self.about.n_items, min(k, self.about.n_items)
        items = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        rows = np.arange(len(queries))
        lists = exclude if exclude is not None and len(exclude) else None
        spare = 0 if lists is None else int(lists.counts.max())
        n_candidates = min(self.about.n_candidates * (2 if exact else 1) * k + spare, n_items)
        # In fp64: in fp32 the squares of a vector of length 1e-23 are 0, and so its bound would be.
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        # The cells of a list of PROBED_K hold few more; a longer one needs as many more of them.
        n_probes = self.about.n_cells if exact else self.about.n_probes * -(-k // PROBED_K)
        while len(rows):
            n_probes = min(n_probes, self.about.n_cells)
            coded, found = self._candidates(queries[rows], n_candidates, n_probes)
            for row, candidates in zip(rows, found, strict=True):
                left_out = None if lists is None else lists[int(row)]
                items[row], scores[row] = self._best_of(queries[row], candidates, left_out, k)
            if not exact and n_probes < self.about.n_cells:
                rows, n_probes = rows[items[rows, -1] < 0], n_probes * GROWTH
                continue
            if not exact or n_candidates == n_items:
                break
            # An item that is not among the candidates scores no more than the last of them could.
            rows = rows[scores[rows, -1] <= coded[:, -1] + self.about.code_error * lengths[rows]]
            n_candidates *= GROWTH
            if len(rows) and n_candidates > n_items // LARGEST_SHARE:
                rest = None if lists is None else lists.take(rows)
                items[rows], scores[rows] = top_k(queries[rows], self._vectors, k=k, exclude=rest)
                break
        return items, scores

    def _candidates(self, queries: _Array, n: int, n_probes: int) -> tuple[_Array, NDArray[np.int64]]:
        found: tuple[_Array, NDArray[np.int64]] = self._index.search(
            queries, n, params=import_faiss().SearchParametersIVF(nprobe=n_probes)
        )
        return found

    def _best_of(
        self, query: _Array, candidates: NDArray[np.int64], left_out: NDArray[np.int64] | None, k: int
    ) -> tuple[NDArray[np.int64], _Array]:
        """Gives the K best of some items (C,), of which -1 is none, by their own vectors."""
        candidates = np.sort(candidates[candidates >= 0])  # of equal scores the earlier item comes first
        if left_out is not None:
            candidates = candidates[~np.isin(candidates, left_out)]
        scores = np.asarray(self._vectors[candidates], dtype=np.float32) @ query
        best = np.argsort(-scores, kind="stable")[:k]
        missing = k - len(best)
        return (
            np.pad(candidates[best], (0, missing), constant_values=-1),
            np.pad(scores[best], (0, missing), constant_values=-np.inf),
        )


def _check(queries: _Array, width: int, k: int, exclude: Lists | None) -> None:
    """Refuses what cannot be searched for; see `ItemIndex.search`."""
    if queries.ndim != 2 or queries.shape[1] != width:
        raise ArgumentError(f"user_vectors: shape {queries.shape}; give (U, {width}), one row per user")
    check_finite(queries)
    check_length(k)
    if exclude is not None and len(exclude) not in (0, len(queries)):
        raise ArgumentError(f"exclude: {len(exclude)} lists for {len(queries)} users; give one for each")


def open_index(folder: str | Path, vectors: _Array) -> ItemIndex:
    """Opens what `index_build.build_index` wrote, memory-mapped.

    Raises:
        LoraRecError: faiss is not installed.
        DataError: there is none, it does not read, or it is of other vectors.
    """
    faiss = import_faiss()
    root = Path(folder)
    advice = "make it anew: lora-rec index"
    if not (root / ABOUT).exists() or not (root / INDEX).exists():
        raise DataError(f"{root}: no index; {advice}")
    try:
        about = IndexAbout(**json.loads((root / ABOUT).read_text(encoding="utf-8")))
        index = faiss.read_index(str(root / INDEX), faiss.IO_FLAG_MMAP)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{root / INDEX}: does not read ({error}); {advice}") from error
    if (about.n_items, about.width) != vectors.shape or about.digest != digest_of(vectors):
        raise DataError(f"{root / INDEX}: of other vectors than these; {advice}")
    return ItemIndex(about, index, vectors)


def digest_of(vectors: _Array) -> str:
    """Gives the hash of all rows: one that differs may be missed by a search that calls itself exact."""
    digest = hashlib.sha256()
    for start in range(0, len(vectors), ITEMS_AT_ONCE):
        digest.update(np.ascontiguousarray(vectors[start : start + ITEMS_AT_ONCE], dtype=np.float32).data)
    return digest.hexdigest()


def import_faiss() -> Any:
    """Gives faiss, or says how to install it."""
    try:
        import faiss
    except ImportError as error:
        raise missing_extra("faiss", extra="ann") from error
    return faiss
