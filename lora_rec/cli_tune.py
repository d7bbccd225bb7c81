"""The command `lora-rec tune-diversity`: chooses a trade-off and keeps it in the bundle."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_rec.rank.tradeoff import Front, Point

KEEP = 0.95
PICTURE = "pictures/diversity.png"


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's."""
    tune = commands.add_parser(
        "tune-diversity",
        help="choose how lists trade relevance for diversity, and keep that in the bundle",
        description="Reads what the run measured on validation users (diversity.json), prints it, and makes"
        " one setting the bundle's own: `recommend` then uses it unless told otherwise. `ild` is the mean"
        " distance of a list's items by who took them, as known from users that no re-ranker looked at;"
        " `ild_text` by their texts, as the trained user tower reads them.",
        epilog="example: lora-rec tune-diversity runs/quickstart --keep 0.95",
    )
    tune.add_argument("bundle", help="output folder of a run")
    wanted = tune.add_mutually_exclusive_group()
    wanted.add_argument(
        "--keep",
        type=float,
        metavar="SHARE",
        help=f"the most diverse setting that keeps so much of the ndcg (default: {KEEP}); 1 loses nothing",
    )
    wanted.add_argument(
        "--least-diversity",
        type=float,
        metavar="X",
        help="the most relevant setting with at least so much of the measure",
    )
    tune.add_argument(
        "--measure",
        choices=["ild", "ild_text", "coverage", "novelty"],
        default="ild",
        help="what counts as diversity (default: %(default)s)",
    )
    tune.set_defaults(run=_tune)


def _tune(arguments: argparse.Namespace) -> None:
    from lora_rec.bundle import read_manifest, rewrite_manifest
    from lora_rec.errors import BundleError
    from lora_rec.rank.stored import is_shown_lists
    from lora_rec.rank.tradeoff import read_front, store_setting
    from lora_rec.schema import CATEGORY_STRATEGIES, ITEM_TEXTS

    manifest = read_manifest(arguments.bundle)
    if is_shown_lists(manifest):
        raise BundleError(
            f"{arguments.bundle}: it orders lists that were shown, all of whose items stay, so there is no"
            " trade-off to choose; tune a bundle that ranks a catalogue"
        )
    front = read_front(arguments.bundle)
    if ITEM_TEXTS in manifest.left_out:
        kept = tuple(point for point in front.points if point.strategy not in CATEGORY_STRATEGIES)
        if len(kept) < len(front.points):
            front = replace(front, points=kept)
            print(
                "without item texts the bundle cannot re-rank by categories, so those settings are left out"
            )
    measure = arguments.measure
    if arguments.least_diversity is None:
        keep = KEEP if arguments.keep is None else arguments.keep
        chosen = front.most_diverse(keep=keep, measure=measure)
        why = f"the most {measure} among those that keep {keep:g} of ndcg@{front.k}"
    else:
        chosen = front.most_relevant(least=arguments.least_diversity, measure=measure)
        why = f"the most ndcg@{front.k} among those with {measure} {arguments.least_diversity:g} or more"
    print(_table(front, chosen, measure))
    print(f"\nchosen: {chosen.line}, diversity {chosen.diversity:.4g}: {why}")
    print(f"  {_changes(front, chosen)}, on {front.n_users:,} validation users")
    # The picture changes after this; until then, and if it stops in between, nothing vouches for it.
    files = {name: digest for name, digest in manifest.files.items() if name != PICTURE}
    ranking = store_setting(manifest.ranking, chosen)
    rewrite_manifest(arguments.bundle, replace(manifest, ranking=ranking, files=files))
    print(f"wrote {arguments.bundle}/bundle.json; lora-rec recommend now uses it")
    _draw(Path(arguments.bundle), front, chosen, measure)


def _table(front: Front, chosen: Point, measure: str) -> str:
    """Gives the relevance order, and of each line the most diverse points at some shares of relevance."""
    from lora_rec.metrics import format_table

    shown = [front.plain]
    for line in front.lines():
        for keep in (1.0, 0.95, 0.9):
            best = front.best_of_line(line, keep=keep, measure=measure)
            if best is not None and best not in shown:
                shown.append(best)
    if chosen not in shown:
        shown.append(chosen)
    rows = {
        f"{p.line}, {p.diversity:.3g}" + (" *" if p == chosen else ""): p.values | {"kept": front.kept(p)}
        for p in shown
    }
    columns = ["kept", "ndcg", "recall", "ild", "ild_text", "coverage", "novelty"]
    return format_table(rows, columns=columns, title_column="setting")


def _changes(front: Front, chosen: Point) -> str:
    """Says what changes against the relevance order."""
    plain, own = front.plain.values, chosen.values
    return ", ".join(
        f"{name} {plain[name]:.4f} to {own[name]:.4f} ({own[name] / plain[name] - 1:+.1%})"
        for name in ("ndcg", "ild", "ild_text", "coverage")
        if plain[name] > 0
    )


def _draw(bundle: Path, front: Front, chosen: Point, measure: str) -> None:
    """Writes the picture, which bundle.json does not name: a stop before it leaves the bundle valid."""
    from lora_rec.bundle import replace_file
    from lora_rec.errors import LoraRecError
    from lora_rec.pipeline.pictures import check_pictures, draw_front

    try:
        check_pictures()
    except LoraRecError as error:
        print(f"no picture: {error}")
        return
    picture = bundle / PICTURE
    picture.parent.mkdir(exist_ok=True)
    replace_file(picture, draw_front(front, chosen, measure=measure))
    print(f"wrote {picture}")
