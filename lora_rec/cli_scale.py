"""The commands for tables larger than memory: `lora-rec store`, `encode-items` and `recommend-all`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lora_rec
from lora_rec import cli_hub, cli_lists
from lora_rec.errors import DataError, missing_extra
from lora_rec.schema import SPACES, STRATEGIES


def add_commands(commands: Any) -> None:
    """Adds the commands to the parser's."""
    _add_store(commands)
    _add_encode(commands)
    _add_recommend_all(commands)


def _add_store(commands: Any) -> None:
    store = commands.add_parser(
        "store",
        help="tables larger than memory into histories and item texts on disk",
        description="Reads interactions and items in batches, checks them, sorts the interactions by user and"
        " time on disk, and writes a folder that is memory-mapped when it is opened, by"
        " lora_rec.data.stored.open_stored, lora-rec encode-items and lora-rec recommend-all.",
        epilog="example: lora-rec store clicks/ --items items.parquet --output data/stored",
    )
    store.add_argument("interactions", nargs="+", help="Parquet, CSV or TSV files, or one folder of them")
    store.add_argument("--items", required=True, nargs="+", help="the item table, likewise")
    store.add_argument("--output", required=True, metavar="FOLDER", help="new, or an older one to replace")
    store.add_argument("--user-column", default="user_id", help="(default: %(default)s)")
    store.add_argument("--item-column", default="item_id", help="(default: %(default)s)")
    store.add_argument(
        "--time-column", default="timestamp", help="'' if there is none (default: %(default)s)"
    )
    store.add_argument("--rating-column", help="to keep, and for --min-rating")
    store.add_argument("--min-rating", type=float, help="leave out interactions with a lower rating")
    store.add_argument("--item-id-column", help="in the item table (default: as --item-column)")
    store.add_argument(
        "--text-columns",
        type=cli_lists.split_ids,
        help="of the item table, with commas (default: all)",
    )
    store.add_argument(
        "--memory-mb", type=int, default=512, help="that sorting may take (default: %(default)s)"
    )
    store.set_defaults(run=_store)


def _add_encode(commands: Any) -> None:
    encode = commands.add_parser(
        "encode-items",
        help="vectors of all items of a stored data set, in blocks",
        description="Encodes items with the item tower into a .npy file that numpy memory-maps. Killed, the"
        " same command goes on behind the blocks that are finished.",
        epilog="example: lora-rec encode-items runs/quickstart --data data/stored --output vectors.npy",
    )
    encode.add_argument("bundle", help=cli_hub.BUNDLE_HELP)
    cli_hub.add_revision(encode)
    encode.add_argument("--data", required=True, metavar="FOLDER", help="that lora-rec store wrote")
    encode.add_argument("--output", required=True, metavar="FILE.npy")
    encode.add_argument("--item-backbone", help="where the item tower's base lies, if it was a local folder")
    encode.add_argument("--device", default="cpu", help="of torch (default: %(default)s)")
    encode.set_defaults(run=_encode)


def _add_recommend_all(commands: Any) -> None:
    lists = commands.add_parser(
        "recommend-all",
        help="lists for all users, in blocks, as Parquet files",
        description="Writes user_id, rank, item_id, score and title for every user. Neither users nor lists"
        " need fit in memory. Killed, the same command goes on behind the blocks that are finished (with"
        " --engine ray it starts again).",
        epilog="example: lora-rec recommend-all runs/quickstart --users data/stored --output lists",
    )
    lists.add_argument("bundle", help=cli_hub.BUNDLE_HELP)
    cli_hub.add_revision(lists)
    lists.add_argument(
        "--users",
        required=True,
        nargs="+",
        metavar="PATH",
        help="the folder that lora-rec store wrote, or Parquet files with the columns user_id and history,"
        " a list of item ids, oldest first",
    )
    lists.add_argument("--output", required=True, metavar="FOLDER", help="new, or older lists to replace")
    lists.add_argument("-k", type=int, default=10, help="length of a list (default: %(default)s)")
    lists.add_argument("--diversity", type=float, help="from 0 to 1 (default: the bundle's own)")
    lists.add_argument("--strategy", choices=STRATEGIES, help="(default: the bundle's own)")
    lists.add_argument("--space", choices=SPACES, help="(default: the bundle's own)")
    lists.add_argument(
        "--skip-unknown", action="store_true", help="leave out items that the bundle does not know"
    )
    lists.add_argument(
        "--users-at-once", type=int, help="users in a block (default: 10,000, and as few as fit with Ray)"
    )
    lists.add_argument(
        "--engine",
        choices=("here", "ray"),
        default="here",
        help="in this process, or over the cores or the cluster of Ray, which takes one Parquet file or"
        " folder, and needs the extra 'ray' (default: %(default)s)",
    )
    lists.set_defaults(run=_recommend_all)


def _progress(blocks: Iterable[Any], what: str) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(blocks, desc=what, unit="block")


def _store(arguments: argparse.Namespace) -> None:
    try:
        from lora_rec.data.store import store_dataset
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name), extra="train") from error
    try:
        stored = _store_tables(store_dataset, arguments)
    except DataError as error:
        if "no such column" not in str(error):
            raise
        flags = "--user-column, --item-column, --time-column and, in the item table, --item-id-column"
        raise DataError(f"{error}\n  (yours are named by {flags})") from error
    print(
        f"wrote {arguments.output}: {stored.n_users:,} users, {stored.n_items:,} items,"
        f" {stored.n_interactions:,} interactions",
        *stored.notes,
        sep="\n  ",
    )


def _store_tables(store_dataset: Callable[..., Any], arguments: argparse.Namespace) -> Any:
    return store_dataset(
        _one_or_all(arguments.interactions),
        _one_or_all(arguments.items),
        arguments.output,
        user_column=arguments.user_column,
        item_column=arguments.item_column,
        time_column=arguments.time_column or None,
        rating_column=arguments.rating_column,
        item_id_column=arguments.item_id_column,
        text_columns=arguments.text_columns,
        min_rating=arguments.min_rating,
        memory_mb=arguments.memory_mb,
        progress=_progress,
    )


def _encode(arguments: argparse.Namespace) -> None:
    from lora_rec.hub import find_bundle

    try:
        import torch  # noqa: F401

        from lora_rec.data.stored import open_stored
        from lora_rec.export.catalog_vectors import encode_catalog
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name), extra="train") from error
    vectors = encode_catalog(
        find_bundle(arguments.bundle, revision=arguments.revision),
        open_stored(arguments.data),
        arguments.output,
        item_backbone=arguments.item_backbone,
        device=arguments.device,
        progress=_progress,
    )
    print(f"wrote {arguments.output}: {len(vectors):,} vectors, {vectors.shape[1]} wide")


def _recommend_all(arguments: argparse.Namespace) -> None:
    names = ("diversity", "strategy", "space")
    settings = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    settings["skip_unknown"] = arguments.skip_unknown
    if arguments.engine == "ray":
        _recommend_all_by_ray(arguments, settings)
        return
    try:
        from lora_rec.export.all_users import USERS_AT_ONCE, recommend_all
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name), extra="train") from error
    rec = lora_rec.load(arguments.bundle, revision=arguments.revision)
    done = recommend_all(
        rec,
        _one_or_all(arguments.users),
        arguments.output,
        k=arguments.k,
        users_at_once=USERS_AT_ONCE if arguments.users_at_once is None else arguments.users_at_once,
        progress=_progress,
        **settings,
    )
    kept = f"; {done.n_kept} of {done.n_blocks} blocks were there already" if done.n_kept else ""
    print(f"wrote {done.folder}: {done.n_rows:,} items for {done.n_users:,} users{kept}")


def _recommend_all_by_ray(arguments: argparse.Namespace, settings: dict[str, Any]) -> None:
    from lora_rec.data.stored import ABOUT
    from lora_rec.export.ray_all import recommend_all_ray
    from lora_rec.hub import find_bundle

    users = _one_or_all(arguments.users)
    if isinstance(users, list) or (Path(users) / ABOUT).exists():
        raise DataError(
            "--users: Ray reads one Parquet file, or a folder of them, with the columns user_id and history;"
            " give that, or leave --engine ray out"
        )
    bundle = find_bundle(arguments.bundle, revision=arguments.revision)
    at_once = arguments.users_at_once
    n_rows = recommend_all_ray(
        bundle, users, arguments.output, k=arguments.k, users_at_once=at_once, **settings
    )
    print(f"wrote {arguments.output}: {n_rows:,} items")


def _one_or_all(paths: list[str]) -> str | list[str]:
    return paths[0] if len(paths) == 1 else paths
