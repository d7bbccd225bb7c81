"""Part of `lora-rec recommend`: the order of a list that is shown."""

from __future__ import annotations

import argparse
import json

import lora_rec
from lora_rec.errors import DataError


def split_ids(text: str) -> list[str]:
    """Gives the ids between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def print_shown(arguments: argparse.Namespace) -> None:
    """Prints the shown items, best first.

    Raises:
        DataError: flags that only choose a list from a catalogue.
    """
    if arguments.diversity or arguments.strategy:
        raise DataError("recommend: --diversity and --strategy have no effect with --shown; leave them out")
    rec = lora_rec.load(arguments.bundle)
    items = rec.rank_shown(split_ids(arguments.history), shown=split_ids(arguments.shown))
    width = max(len(item.item_id) for item in items)
    for item in items:
        if arguments.json:
            print(json.dumps(vars(item), ensure_ascii=False))
        else:
            print(f"{item.rank:>3}  {item.item_id:>{width}}  {item.score:8.4f}  {item.title}")
