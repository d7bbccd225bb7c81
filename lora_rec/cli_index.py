"""The command `lora-rec index`."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lora_rec
from lora_rec import cli_hub
from lora_rec.errors import DataError, missing_extra


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's."""
    index = commands.add_parser(
        "index",
        help="make an index for fast search over a bundle's item vectors",
        description="Writes index.faiss and index.json into the bundle, by which"
        " lora_rec.rank.index.open_index finds the items nearest to a user's vector without reading all"
        " vectors, or, where asked for exact lists, all of them in a byte a value. Prints which share of the"
        " exact lists it finds. Needs the extra 'ann'.",
        epilog="example: lora-rec index runs/large --recall 0.99",
    )
    index.add_argument("bundle", help=cli_hub.BUNDLE_HELP)
    cli_hub.add_revision(index)
    index.add_argument(
        "--recall", type=float, default=0.98, help="share of the exact list to find (default: %(default)s)"
    )
    index.add_argument(
        "--queries",
        metavar="FILE.npy",
        help="vectors of users to measure that share with, one row each, as the bundle is asked with"
        " (default: items stand for users, which are easier to find for)",
    )
    index.set_defaults(run=_index)


def _index(arguments: argparse.Namespace) -> None:
    from lora_rec.rank.index_build import build_index

    try:
        from tqdm import tqdm
    except ImportError as error:
        raise missing_extra("tqdm", extra="ann") from error
    rec = lora_rec.load(arguments.bundle, revision=arguments.revision)
    began = time.perf_counter()
    about = build_index(
        rec.folder or arguments.bundle,
        rec.item_vectors,
        queries=None if arguments.queries is None else _read_queries(arguments.queries),
        recall=arguments.recall,
        progress=lambda blocks: tqdm(blocks, desc="items into cells", unit="block"),
    )
    seconds = time.perf_counter() - began
    print(f"{rec.folder}: {about.n_items:,} items in {about.n_cells:,} cells, made in {seconds:.0f} s")
    asked = "the items'" if arguments.queries is None else "these users'"
    print(
        f"a search looks into {about.n_probes} cells and finds {about.recall:.1%} of the exact 100 best, for"
        f" {asked} own vectors"
    )
    print("search(..., exact=True) looks into all, and finds all")


def _read_queries(file: str) -> NDArray[np.float32]:
    try:
        found = np.load(file, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise ValueError("it holds several arrays")
        return found.astype(np.float32)
    except ValueError as error:
        raise DataError(f"--queries: {file} does not read ({error}); give a file of numpy.save") from error
