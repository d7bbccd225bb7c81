"""Makes the index that `rank.index` searches by."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.errors import DataError
from lora_rec.rank.index import (
    ABOUT,
    INDEX,
    ITEMS_AT_ONCE,
    PROBED_K,
    IndexAbout,
    ItemIndex,
    digest_of,
    import_faiss,
)
from lora_rec.rank.search import top_k

LEAST_ITEMS = 10_000
"""Below, exact search takes less than a millisecond."""
TRAINED_PER_CELL = 40
"""Vectors that a centre is found by; faiss wants no fewer."""
CANDIDATES = (2, 4, 8, 16, 32, 64)
"""What `IndexAbout.n_candidates` may be: the least that finds what is wished for."""
ROUNDING = 2.0**-20
"""Of a sum's terms, in fp32, with room to spare."""
_Array = NDArray[np.float32]


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
        DataError: there are too few items, the recall is out of range, or the queries are no vectors like the
            items'.
    """
    faiss = import_faiss()
    n_items, width = vectors.shape
    if not 0 < recall <= 1:
        raise DataError(f"recall: {recall} is not in (0, 1]; it is a share of the exact list")
    if n_items < LEAST_ITEMS:
        raise DataError(
            f"index: {n_items:,} items are searched exactly in under a millisecond; an index helps from"
            f" {LEAST_ITEMS:,} on"
        )
    if queries is not None and (np.ndim(queries) != 2 or not len(queries) or queries.shape[1] != width):
        raise DataError(f"queries: shape {np.shape(queries)}; give (Q, {width}), one row per user")
    if queries is not None and not np.isfinite(queries).all():
        raise DataError("queries: a value is not finite; check what made them")
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
