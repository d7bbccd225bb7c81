"""Approximate search over many item vectors, by an embedded index that is memory-mapped when read.

An inverted file of faiss: vectors are parted into cells around centres, and a search looks into the cells
nearest to it. How many is chosen when the index is made, so that a wished share of the exact list is found.
By benchmarks/search_speed.py it is faster than a graph (HNSW, of faiss or of usearch) of the same recall on
vectors that lie in clusters, as items do. Extra `ann`. `rank.search.top_k` is the exact search, which needs
neither.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """An index, open for search."""

    about: IndexAbout
    _index: Any

    def search(
        self, user_vectors: _Array, *, k: int, exclude: Lists | None = None
    ) -> tuple[NDArray[np.int64], _Array]:
        """Gives nearly the best items of each user by dot product.

        Args:
            user_vectors: (U, D).
            k: list length; at most N are given.
            exclude: U lists of items that are left out.

        Returns:
            Items (U, K) and scores (U, K) as `search.top_k` gives them; -1 and -inf where fewer were found.
        """
        k = min(k, self.about.n_items)
        spare = 0 if exclude is None or not len(exclude) else int(exclude.counts.max())
        queries = np.ascontiguousarray(user_vectors, dtype=np.float32)
        scores, items = self._index.search(queries, min(k + spare, self.about.n_items))
        scores = np.where(items < 0, -np.inf, scores).astype(np.float32)
        for row in range(len(items) if spare and exclude is not None else 0):
            gone = np.isin(items[row], exclude[row])  # type: ignore[index]
            order = np.argsort(gone, kind="stable")
            items[row], scores[row] = items[row, order], scores[row, order]
            items[row, len(gone) - gone.sum() :], scores[row, len(gone) - gone.sum() :] = -1, -np.inf
        return items[:, :k].astype(np.int64), scores[:, :k]


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
        progress: wraps the first items of the blocks that are added.

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
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, n_cells, faiss.METRIC_INNER_PRODUCT)
    index.train(np.ascontiguousarray(vectors[sample], dtype=np.float32))
    for start in progress(range(0, n_items, ITEMS_AT_ONCE)):
        index.add(np.ascontiguousarray(vectors[start : start + ITEMS_AT_ONCE], dtype=np.float32))
    if queries is None:
        queries = vectors[np.sort(generator.choice(n_items, 200, replace=False))]
    k = min(PROBED_K, n_items)
    exact, _ = top_k(queries, vectors, k=k)
    n_probes, found = 1, 0.0
    while True:
        index.nprobe = n_probes
        _, items = index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
        found = float(np.mean([len(np.intersect1d(*pair)) / k for pair in zip(items, exact, strict=True)]))
        if found >= recall or n_probes == n_cells:
            break
        n_probes *= 2
    about = IndexAbout(n_items, width, digest_of(vectors), n_cells, n_probes, found)
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
    index.nprobe = about.n_probes
    return ItemIndex(about, index)


def digest_of(vectors: _Array) -> str:
    """Gives the hash of a thousand rows, evenly spaced."""
    rows = np.unique(np.linspace(0, len(vectors) - 1, 1000).astype(np.int64))
    return hashlib.sha256(np.ascontiguousarray(vectors[rows], dtype=np.float32).tobytes()).hexdigest()


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
