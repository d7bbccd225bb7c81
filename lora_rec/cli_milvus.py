"""The command `lora-rec milvus`."""

from __future__ import annotations

import argparse
import logging
import os
import time
from typing import Any

import lora_rec
from lora_rec import cli_hub, cli_lists
from lora_rec.errors import missing_extra

TOKEN = "MILVUS_TOKEN"


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's."""
    milvus = commands.add_parser(
        "milvus",
        help="put a bundle's items into Milvus",
        description="Writes the items' vectors, ids and fields into a new collection of Milvus and puts that"
        " in the place of the one before, so a search sees the old items or the new ones. Lists from there:"
        " lora_rec.export.milvus.open_milvus. Needs the extra 'milvus'.",
        epilog="example: lora-rec milvus runs/quickstart --uri items.db --collection films",
    )
    milvus.add_argument("bundle", help=cli_hub.BUNDLE_HELP)
    cli_hub.add_revision(milvus)
    milvus.add_argument(
        "--uri",
        required=True,
        help="a file ending in .db, for the embedded Milvus Lite, or http://HOST:19530",
    )
    milvus.add_argument("--collection", required=True, help="name by which the items are searched")
    milvus.add_argument(
        "--vectors",
        choices=("head", "towers"),
        default="head",
        help="of the ranking head, whose lists are those of recommend, or of the item tower, for vectors of"
        " the user tower (default: %(default)s)",
    )
    milvus.add_argument(
        "--fields",
        type=cli_lists.split_ids,
        help="item fields for filters, with commas (default: the title and the bundle's categories)",
    )
    milvus.add_argument(
        "--index",
        choices=("FLAT", "HNSW", "IVF_FLAT", "AUTOINDEX"),
        default="FLAT",
        help="FLAT is exact, the others are faster among millions of items (default: %(default)s)",
    )
    milvus.add_argument("--database", default="", help="of a server (default: its own)")
    milvus.add_argument("--token", help=f"USER:PASSWORD or a key; better in the environment, as {TOKEN}")
    milvus.set_defaults(run=_milvus)


def _milvus(arguments: argparse.Namespace) -> None:
    from lora_rec.export.milvus import export_to_milvus

    try:
        from tqdm import tqdm
    except ImportError as error:
        raise missing_extra("tqdm", extra="milvus") from error
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # the one line of the error says it
    rec = lora_rec.load(arguments.bundle, revision=arguments.revision)
    began = time.perf_counter()
    done = export_to_milvus(
        rec,
        uri=arguments.uri,
        collection=arguments.collection,
        vectors=arguments.vectors,
        fields=arguments.fields,
        index=arguments.index,
        token=arguments.token or os.environ.get(TOKEN),
        database=arguments.database,
        progress=lambda batches: tqdm(batches, desc="items into Milvus", unit="batch"),
    )
    seconds = time.perf_counter() - began
    fields = f", fields {', '.join(done.fields)}" if done.fields else ""
    print(f"{done.collection}: {done.n_items:,} items, {done.width} wide{fields}, in {seconds:.1f} s")
    print(f"written as {done.written}")
