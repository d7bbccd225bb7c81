"""The command `lora-rec cache`."""

from __future__ import annotations

import argparse
import time
from typing import Any

from lora_rec.cache import KINDS, cache_folder, list_cache, prune_cache
from lora_rec.errors import ArgumentError


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's."""
    cache = commands.add_parser(
        "cache",
        help="what lies in the cache, how large it is, and what may go",
        description="Lists what was computed or downloaded once: LORA_REC_CACHE, by default"
        " ~/.cache/lora_rec. All of it can be made again. Without flags nothing is removed.",
        epilog="example: lora-rec cache --keep-gb 20 --older-than 30",
    )
    cache.add_argument(
        "--keep-gb", type=_positive, help="remove what was not opened for longest until so much is left"
    )
    cache.add_argument("--older-than", type=_positive, metavar="DAYS", help="remove what nobody opened since")
    cache.add_argument(
        "--kind",
        action="append",
        choices=tuple(KINDS),
        help="that may go; may be repeated (default: prefix and tokens)",
    )
    cache.set_defaults(run=_cache)


def _positive(value: str) -> float:
    number = float(value)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{value} is not a number of 0 or more")
    return number


def _cache(arguments: argparse.Namespace) -> None:
    gone = []
    if arguments.keep_gb is not None or arguments.older_than is not None:
        gone = prune_cache(
            keep_bytes=None if arguments.keep_gb is None else int(1e9 * arguments.keep_gb),
            older_than=None if arguments.older_than is None else 86_400 * arguments.older_than,
            kinds=tuple(arguments.kind or ("prefix", "tokens")),
        )
    elif arguments.kind:
        raise ArgumentError("--kind: says what may go; add --keep-gb or --older-than")
    for entry in gone:
        print(f"removed {entry.kind}: {entry.about} ({_size(entry.n_bytes)})")
    entries = list_cache()
    print(f"{cache_folder()}: {_size(sum(entry.n_bytes for entry in entries))}")
    for kind, what in KINDS.items():
        mine = [entry for entry in entries if entry.kind == kind]
        if not mine:
            continue
        print(f"  {kind} ({what}): {_size(sum(entry.n_bytes for entry in mine))}")
        for entry in mine:
            days = (time.time() - entry.last_opened) / 86_400
            print(f"    {_size(entry.n_bytes):>9}  opened {days:.0f} days ago  {entry.about}")


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"
