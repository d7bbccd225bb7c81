"""`lora-rec recommend` and `lora-rec recommend-friends`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import lora_rec
from lora_rec import cli_hub
from lora_rec.errors import DataError
from lora_rec.schema import SPACES, STRATEGIES
from lora_rec.terminal import visible

if TYPE_CHECKING:
    from lora_rec.rank.recommendation import Recommendation

LENGTH = 10
"""Of a list, unless `-k` says otherwise."""


def add_commands(commands: Any) -> None:
    """Adds the commands to the parser's."""
    _add_recommend(commands)
    _add_recommend_friends(commands)


def _add_recommend(commands: Any) -> None:
    recommend = commands.add_parser(
        "recommend",
        help="ten items for one history",
        epilog="example: lora-rec recommend runs/quickstart --history 318,296 -k 10 --diversity 0.3",
    )
    recommend.add_argument("bundle", help=cli_hub.BUNDLE_HELP)
    cli_hub.add_revision(recommend)
    recommend.add_argument(
        "--history",
        required=True,
        type=split_ids,
        help="item ids, oldest first, with commas between them; '' for somebody new",
    )
    recommend.add_argument(
        "--skip-unknown", action="store_true", help="leave out ids that the bundle does not know"
    )
    recommend.add_argument(
        "-k", type=int, help=f"length of the list (default: {LENGTH}, or all that is shown)"
    )
    recommend.add_argument(
        "--diversity",
        type=float,
        help="0 keeps the relevance order, 1 is the most diverse (default: the bundle's own)",
    )
    recommend.add_argument(
        "--strategy", choices=STRATEGIES, help="how the list is re-ranked (default: the bundle's own)"
    )
    recommend.add_argument(
        "--space", choices=SPACES, help="vectors that say how alike items are (default: the bundle's own)"
    )
    recommend.add_argument(
        "--shown",
        type=split_ids,
        help="item ids with commas between them: order these instead, e.g. --history N1,N2 --shown N7,N9;"
        " for a bundle of recipes/shown_lists.py",
    )
    recommend.add_argument(
        "--explain", action="store_true", help="say under each item which items of the history carried it"
    )
    recommend.add_argument(
        "--exclude",
        type=split_ids,
        default=[],
        metavar="ITEMS",
        help="item ids to leave out, with commas",
    )
    recommend.add_argument(
        "--exclude-categories",
        type=split_ids,
        default=[],
        metavar="NAMES",
        help="categories to leave out, with commas",
    )
    recommend.add_argument(
        "--quota",
        action="append",
        default=[],
        type=_quota,
        metavar="NAME=LEAST:MOST",
        help="items of a category in the list, e.g. Drama=2:4, Drama=2: or Drama=:4; may be repeated",
    )
    recommend.add_argument(
        "--explore",
        type=float,
        default=0.0,
        help="share of the list, but for its first place, drawn from further down (default: %(default)s)",
    )
    recommend.add_argument("--seed", type=int, default=0, help="of that draw (default: %(default)s)")
    recommend.add_argument("--json", action="store_true", help="print JSON, one object per item")
    recommend.set_defaults(run=_recommend)


def _add_recommend_friends(commands: Any) -> None:
    friends = commands.add_parser(
        "recommend-friends",
        help="friends for the users of a recipe's data",
        description="Fits a model of friendships, tastes and item texts on a recipe's data and prints whom"
        " its users are likely to know, with what they share. The fit is not kept: it holds user data.",
        epilog="example: lora-rec recommend-friends recipes/configs/lastfm.yaml data.root=FOLDER --user 2"
        " --output friends.csv --test",
    )
    friends.add_argument("recipe", help="YAML file whose data has friends, see recipes/configs/lastfm.yaml")
    friends.add_argument("overrides", nargs="*", help="section.field=value, e.g. data.root=FOLDER")
    friends.add_argument("--user", action="append", metavar="ID", help="print this user's; may be repeated")
    friends.add_argument("-k", type=int, default=LENGTH, help="length of a list (default: %(default)s)")
    friends.add_argument("--output", metavar="FILE.csv", help="write everybody's lists")
    friends.add_argument(
        "--test",
        action="store_true",
        help="first withhold a tenth of the friendships and print how well they are found again",
    )
    friends.set_defaults(run=_recommend_friends)


def _quota(value: str) -> tuple[str, tuple[int | None, int | None]]:
    name, equals, limits = value.rpartition("=")
    least, colon, most = limits.partition(":")
    try:
        if not (name and equals and colon):
            raise ValueError
        return name, (int(least) if least.strip() else None, int(most) if most.strip() else None)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not NAME=LEAST:MOST, e.g. Drama=2:4") from None


def _recommend(arguments: argparse.Namespace) -> None:
    if arguments.shown is not None:
        _print_shown(arguments)
        return
    k = LENGTH if arguments.k is None else arguments.k
    items = lora_rec.load(arguments.bundle, revision=arguments.revision).recommend(
        arguments.history,
        k=k,
        diversity=arguments.diversity,
        strategy=arguments.strategy,
        space=arguments.space,
        exclude=arguments.exclude,
        exclude_categories=arguments.exclude_categories,
        quotas=_gather_quotas(arguments.quota),
        explore=arguments.explore,
        seed=arguments.seed,
        skip_unknown=arguments.skip_unknown,
        explain=arguments.explain,
    )
    _print_items(items, as_json=arguments.json)
    if len(items) < k:
        print(f"lora-rec: {len(items)} of {k}: no more are left after what is excluded", file=sys.stderr)


def _recommend_friends(arguments: argparse.Namespace) -> None:
    from lora_rec.metrics import format_table
    from lora_rec.pipeline.friend_lists import (
        compare_friends,
        explain_friends,
        fit_friend_model,
        read_friend_data,
        write_friends,
    )
    from lora_rec.recipe import Recipe

    if not (arguments.user or arguments.output or arguments.test):
        raise DataError("recommend-friends: nothing to do; give --user ID, --output FILE.csv or --test")
    recipe = Recipe.load(arguments.recipe, overrides=arguments.overrides)
    seed, k = recipe.train.seed, arguments.k
    data = read_friend_data(recipe)
    print(f"{data.dataset.n_users:,} users, {len(data.friends):,} friendships", *data.notes, sep="; ")
    if arguments.test:
        print("a tenth of the friendships withheld:")
        print(format_table(compare_friends(data, seed=seed), columns=["auc", "ndcg@10"]))
    if not (arguments.user or arguments.output):
        return
    model = fit_friend_model(data, seed=seed)
    for row in explain_friends(model, data, arguments.user or [], k=k):
        if row.rank == 1:
            print(f"\n{visible(f'user {row.user_id}')}")
        line = (
            f"{row.rank:>3}  {row.friend_id}  {row.score:.4f}  {row.n_shared_friends} shared friends"
            f"{f' ({row.shared_friends})' if row.shared_friends else ''}, {row.n_shared_items} shared items"
            f"{f' ({row.shared_items})' if row.shared_items else ''}"
        )
        print(visible(line))
    if arguments.output:
        rows = explain_friends(model, data, None, k=k, show_progress=True)
        print(f"wrote {arguments.output}: {write_friends(rows, arguments.output):,} rows")


def split_ids(text: str) -> list[str]:
    """Gives the ids between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _gather_quotas(
    given: Sequence[tuple[str, tuple[int | None, int | None]]],
) -> dict[str, tuple[int | None, int | None]]:
    """Gives the quotas by category.

    Raises:
        DataError: a category has two of them, of which one would be lost.
    """
    names = [name for name, _ in given]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"--quota: {name!r} is there twice; give both limits at once, e.g. {name}=2:4")
    return dict(given)


def _print_shown(arguments: argparse.Namespace) -> None:
    """Prints the shown items, best first; all of them, or the foremost `-k`.

    Raises:
        DataError: flags that only choose a list from a catalogue, or a length below 1.
    """
    flags = ["diversity", "strategy", "space", "exclude", "exclude_categories", "quota", "explore", "explain"]
    flags.append("skip_unknown")
    given = [f"--{flag.replace('_', '-')}" for flag in flags if getattr(arguments, flag)]
    if given:
        raise DataError(f"recommend: no effect with --shown: {', '.join(given)}; leave it out")
    if arguments.k is not None and arguments.k < 1:
        raise DataError(f"recommend: -k {arguments.k} is below 1; give the length of the list")
    rec = lora_rec.load(arguments.bundle, revision=arguments.revision)
    ordered = rec.rank_shown(arguments.history, shown=arguments.shown)
    _print_items(ordered[: arguments.k], as_json=arguments.json)


def _print_items(items: Sequence[Recommendation], *, as_json: bool) -> None:
    """Prints one line an item, and below it why, if that was asked for."""
    width = max((len(item.item_id) for item in items), default=0)
    for item in items:
        if as_json:
            row = {name: value for name, value in asdict(item).items() if value is not None}
            print(json.dumps(row, ensure_ascii=False))
            continue
        print(visible(f"{item.rank:>3}  {item.item_id:>{width}}  {item.score:8.4f}  {item.title}"))
        if item.explanation is not None:
            print(visible(f"{'':>{width + 5}}  {item.explanation.in_one_line()}"))
