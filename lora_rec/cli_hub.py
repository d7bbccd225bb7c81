"""The command `lora-rec push`, and what other commands share that take a name on the Hub."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from lora_rec.schema import TOWERS

BUNDLE_HELP = "output folder of a run, or OWNER/NAME on the Hub"


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's."""
    push = commands.add_parser(
        "push",
        help="put a bundle on the Hub, with a card",
        description="Sends a bundle as one commit: the files that bundle.json names and a card written from"
        " them (README.md), nothing else of the folder. Files that are there already are not sent again. Log"
        " in first: hf auth login, or set HF_TOKEN. Nobody's ids or histories are in a bundle; whoever may"
        " read it sees the items' texts and vectors unless they are left out.",
        epilog="example: lora-rec push runs/quickstart ann/films --private",
    )
    push.add_argument("bundle", help="output folder of a run")
    push.add_argument("name", help="OWNER/NAME on the Hub; made where it is not there")
    seen = push.add_mutually_exclusive_group()
    seen.add_argument("--private", action="store_true", default=None, help="only its owner sees it")
    seen.add_argument(
        "--public",
        action="store_false",
        dest="private",
        default=None,
        help="everybody sees it (default: as it is, or as the Hub makes new ones)",
    )
    add_revision(push, "branch; made where it is not there (default: main)")
    push.add_argument("--message", help="of the commit")
    push.add_argument("--licence", metavar="NAME", help="of the bundle, by the Hub's name, e.g. apache-2.0")
    push.add_argument("--only", choices=TOWERS, help="send this tower without the other")
    push.add_argument(
        "--without-item-texts", action="store_true", help="titles are then ids for whoever loads it"
    )
    push.add_argument(
        "--without-item-vectors",
        action="store_true",
        help="leave out vectors and weights of the items, the ranking head with them; the towers stay",
    )
    push.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="FILE",
        help="send a file that tells of single users, e.g. user_vectors.npy; may be repeated",
    )
    push.set_defaults(run=_push)


def add_revision(parser: Any, text: str = "branch, tag or commit, for a name on the Hub") -> None:
    """Adds the flag that chooses a revision."""
    parser.add_argument("--revision", help=text)


def _push(arguments: argparse.Namespace) -> None:
    from lora_rec.hub import push_bundle

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("lora_rec").setLevel(logging.INFO)
    pushed = push_bundle(
        arguments.bundle,
        arguments.name,
        private=arguments.private,
        revision=arguments.revision,
        commit_message=arguments.message,
        towers=TOWERS if arguments.only is None else (arguments.only,),
        item_texts=not arguments.without_item_texts,
        item_vectors=not arguments.without_item_vectors,
        include=arguments.include,
        licence=arguments.licence,
    )
    for word, files in (("sent", pushed.sent), ("deleted", pushed.deleted)):
        if files:
            print(f"{word}: {', '.join(files)}")
    print(f"unchanged: {pushed.n_unchanged} files")
    print(f"commit {pushed.commit}: {pushed.url}")
    at = f", revision={arguments.revision!r}" if arguments.revision else ""
    print(f"load it: lora_rec.load({pushed.name!r}{at})")
