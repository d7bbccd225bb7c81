"""The command `lora-rec report`: one page about a run."""

from __future__ import annotations

import argparse
from typing import Any

from lora_rec import cli_hub


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's."""
    report = commands.add_parser(
        "report",
        help="one HTML page about a run: what it gained, where, and for whom",
        description="Writes one self-contained page: towers before and after fine-tuning and the ranking head"
        " against the baselines, with intervals and paired tests; what variety costs; parts of the users by"
        " popularity, history and category; how it was trained. With --data also some users helped and hurt,"
        " with both lists side by side and what carried each item. A bundle holds no user, so these come from"
        " the data of its run, which is checked to be the same; that page is not for publishing.",
        epilog="examples: lora-rec report runs/quickstart --data --output quickstart.html;"
        " lora-rec report runs/lastfm --data FOLDER --words 2;"
        " lora-rec report runs/mine --data data.interactions=clicks.csv data.items=items.csv",
    )
    report.add_argument("bundle", help=cli_hub.BUNDLE_HELP)
    cli_hub.add_revision(report)
    report.add_argument(
        "--data",
        nargs="*",
        metavar="FOLDER|data.FIELD=VALUE",
        help="the data of the run: a folder with the publisher's files or the recipe's tables, or settings of"
        " the recipe; nothing behind it where the recipe's own paths are right (default: no users)",
    )
    report.add_argument(
        "--output", default="report.html", metavar="FILE", help="the page (default: %(default)s)"
    )
    report.add_argument("--pictures", metavar="FOLDER", help="also write the pictures there, as PNG files")
    report.add_argument(
        "--users",
        type=int,
        default=4,
        metavar="N",
        help="so many users helped, hurt and at random (default: %(default)s of each)",
    )
    report.add_argument(
        "--words",
        type=int,
        default=0,
        metavar="N",
        help="for the first N users load both language models and show which words carried an item, in about"
        " ten seconds each (default: %(default)s)",
    )
    report.add_argument("--seed", type=int, default=0, help="of the draws of users (default: %(default)s)")
    report.add_argument("--user-backbone", help="where the user tower's base lies, if it was a local folder")
    report.add_argument("--item-backbone", help="where the item tower's base lies, if it was a local folder")
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from lora_rec.hub import find_bundle
    from lora_rec.page.write import write_report

    written = write_report(
        find_bundle(arguments.bundle, revision=arguments.revision),
        arguments.output,
        data=arguments.data,
        pictures=arguments.pictures,
        n_users=arguments.users,
        n_words=arguments.words,
        user_backbone=arguments.user_backbone,
        item_backbone=arguments.item_backbone,
        seed=arguments.seed,
        show_progress=True,
    )
    size = written.page.stat().st_size / 1e6
    whose = (
        f"with histories of {written.n_users} users, so keep it where their data may lie"
        if written.n_users
        else "without any user; --data shows some"
    )
    print(f"wrote {written.page}, {size:.1f} MB, {whose}")
    for path in written.pictures:
        print(f"wrote {path}")
