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
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import DataError, missing_extra
from lora_rec.rank.search import top_k

INDEX, ABOUT = "index.faiss", "index.json"
LEAST_ITEMS = 10_000
"""Below, exact search takes less than a millisecond."""
TRAINED_PER_CELL = 40
"""Vectors that a centre is found by; faiss wants no fewer."""
PROBED_K = 100
CANDIDATES = (2, 4, 8, 16, 32, 64)
"""What `IndexAbout.n_candidates` may be: the least that finds what is wished for."""
GROWTH = 4
"""By which an exact search asks for more where its list is not proven yet."""
LARGEST_SHARE = 8
"""Above the catalogue over this, all vectors are read instead."""
ROUNDING = 2.0**-20
"""Of a sum's terms, in fp32, with room to spare."""
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
            k: list length; at most N are given.
            exclude: U lists of items that are left out.
            exact: look into all cells, and as far as it takes to know that nothing better is left.

        Returns:
            Items (U, K) and scores (U, K) as `search.top_k` gives them; -1 and -inf where fewer were found.

        Raises:
            ValueError: a value is not finite.
        """
        queries = np.ascontiguousarray(user_vectors, dtype=np.float32)
        if not np.isfinite(queries).all():
            raise ValueError("user_vectors: a value is not finite; check what made them")
        n_items, k = self.about.n_items, min(k, self.about.n_items)
        items = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        rows = np.arange(len(queries))
        lists = exclude if exclude is not None and len(exclude) else None
        spare = 0 if lists is None else int(lists.counts.max())
        n_candidates = min(self.about.n_candidates * (2 if exact else 1) * k + spare, n_items)
        # In fp64: in fp32 the squares of a vector of length 1e-23 are 0, and so its bound would be.
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        while len(rows):
            coded, found = self._candidates(queries[rows], n_candidates, exact=exact)
            for row, candidates in zip(rows, found, strict=True):
                left_out = None if lists is None else lists[int(row)]
                items[row], scores[row] = self._best_of(queries[row], candidates, left_out, k)
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

    def _candidates(self, queries: _Array, n: int, *, exact: bool) -> tuple[_Array, NDArray[np.int64]]:
        n_probes = self.about.n_cells if exact else self.about.n_probes
        found: tuple[_Array, NDArray[np.int64]] = self._index.search(
            queries, n, params=_import_faiss().SearchParametersIVF(nprobe=n_probes)
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


def build_index(
    folder: str | Path,
    vectors: _Array,
    *,
    queries: _Array | None = None,
    recall: float = 0.98,
    seed: int = 0,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> IndexAbout:
    """Makes an index and writes it into a folder, whole or not at all.

    Args:
        folder: that has or will have `index.faiss` and `index.json`.
        vectors: (N, D) of the items, also memory-mapped.
        queries: (Q, D), vectors of users, for which the recall is measured; 200 items when left out.
        recall: share of the exact 100 best that is to be found.
        seed: of the sample that the cells are made by.
        progress: wraps the first items of the blocks that are parted into cells.

    Raises:
        LoraRecError: faiss is not installed.
        DataError: there are too few items, or the recall is out of range.
    """
    faiss = _import_faiss()
    n_items, width = vectors.shape
    if not 0 < recall <= 1:
        raise DataError(f"recall: {recall} is not in (0, 1]; it is a share of the exact list")
    if n_items < LEAST_ITEMS:
        raise DataError(
            f"index: {n_items:,} items are searched exactly in under a millisecond; an index helps from"
            f" {LEAST_ITEMS:,} on"
        )
    generator = np.random.default_rng(seed)
    # 4 roots of N, at the lower end of what faiss advises, with enough items in each.
    n_cells = 1 << int(np.log2(min(4 * n_items**0.5, n_items / TRAINED_PER_CELL)))
    sample = np.sort(generator.choice(n_items, TRAINED_PER_CELL * n_cells, replace=False))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(width),
        width,
        n_cells,
        faiss.ScalarQuantizer.QT_8bit_uniform,
        faiss.METRIC_INNER_PRODUCT,
        True,  # codes are of what a vector differs by from its cell's centre: finer where cells are narrow
    )
    index.train(np.ascontiguousarray(vectors[sample], dtype=np.float32))
    error = _fill(index, vectors, faiss, progress)
    if queries is None:
        queries = vectors[np.sort(generator.choice(n_items, 200, replace=False))]
    k = min(PROBED_K, n_items)
    exact, _ = top_k(queries, vectors, k=k)

    def found_by(about: IndexAbout) -> float:
        items, _ = ItemIndex(about, index, vectors).search(queries, k=k)
        return float(np.mean([len(np.intersect1d(*pair)) / k for pair in zip(items, exact, strict=True)]))

    # Through all cells, codes lose at most half of what may be missing; the cells lose the other half.
    about = IndexAbout(n_items, width, digest_of(vectors), n_cells, n_cells, 0.0, 0, error)
    for n_candidates in CANDIDATES:
        about = replace(about, n_candidates=n_candidates)
        if found_by(about) >= 1 - (1 - recall) / 2:
            break
    for n_probes in (1 << power for power in range(n_cells.bit_length())):
        about = replace(about, n_probes=n_probes)
        about = replace(about, recall=found_by(about))
        if about.recall >= recall:
            break
    _write(Path(folder), index, about, faiss)
    return about


def open_index(folder: str | Path, vectors: _Array) -> ItemIndex:
    """Opens what `build_index` wrote, memory-mapped.

    Raises:
        LoraRecError: faiss is not installed.
        DataError: there is none, it does not read, or it is of other vectors.
    """
    faiss = _import_faiss()
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


def _fill(
    index: Any, vectors: _Array, faiss: Any, progress: Callable[[Iterable[int]], Iterable[int]]
) -> float:
    """Adds all vectors to a trained index, and gives by how much a code's score can be off.

    faiss trains codes on a sample, and cuts what lies outside. One vector that is cut would spoil the bound
    for all, so the differences from the centres are looked at first, and the codes spread over all of them.
    """
    starts = range(0, len(vectors), ITEMS_AT_ONCE)
    centres = index.quantizer.reconstruct_n(0, index.nlist)
    cells = np.empty(len(vectors), dtype=np.int64)
    low, high, longest, farthest = np.inf, -np.inf, 0.0, 0.0
    for start in progress(starts):
        block = np.ascontiguousarray(vectors[start : start + ITEMS_AT_ONCE], dtype=np.float32)
        if not np.isfinite(block).all():
            raise DataError(f"index: a value among the vectors from {start:,} on is not finite; check them")
        near = index.quantizer.assign(block, 1)[:, 0]
        cells[start : start + len(block)] = near
        apart = block - centres[near]
        low, high = min(low, float(apart.min())), max(high, float(apart.max()))
        longest = max(longest, float(np.linalg.norm(block, axis=1).max()))
    index.sq.train(np.repeat(np.array([[low], [high]], dtype=np.float32), index.d, axis=1))
    for start in starts:
        block = np.ascontiguousarray(vectors[start : start + ITEMS_AT_ONCE], dtype=np.float32)
        near = cells[start : start + len(block)]
        index.add_core(len(block), faiss.swig_ptr(block), None, faiss.swig_ptr(near))
        apart = block - centres[near]
        off = apart - index.sq.decode(index.sq.compute_codes(apart))
        farthest = max(farthest, float(np.linalg.norm(off, axis=1).max()))
    # A score is a sum over the centre and one over the code.
    return farthest + 2 * ROUNDING * index.d * longest


def _write(folder: Path, index: Any, about: IndexAbout, faiss: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".index-") as scratch:
            faiss.write_index(index, f"{scratch}/{INDEX}")
            Path(f"{scratch}/{ABOUT}").write_text(json.dumps(asdict(about), indent=1), encoding="utf-8")
            (folder / ABOUT).unlink(missing_ok=True)  # a new index with the old numbers is never read
            os.replace(f"{scratch}/{INDEX}", folder / INDEX)
            os.replace(f"{scratch}/{ABOUT}", folder / ABOUT)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{folder}: the index cannot be written ({error}); free space, or another folder"
        ) from error


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise missing_extra("faiss", extra="ann") from error
    return faiss
