"""The command `lora-rec`: parses arguments, then calls what does the work."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import lora_rec
from lora_rec import (
    cli_cache,
    cli_data,
    cli_hub,
    cli_index,
    cli_lists,
    cli_milvus,
    cli_report,
    cli_scale,
    cli_tune,
)
from lora_rec.bundle import PRETRAINED
from lora_rec.errors import BundleError, LoraRecError, missing_package
from lora_rec.terminal import show_all_letters


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; gives 0, or 1 after an error that the user can put right."""
    show_all_letters()
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output, `head` say, has enough; Python would complain of it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        print(f"lora-rec: {missing_package(error)}", file=sys.stderr)
        return 1
    except (LoraRecError, OSError) as error:
        print(f"lora-rec: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lora-rec",
        description="Write a recipe for your data, check data and costs before a run, look into its bundle,"
        " recommend from it, choose its trade-off, report on it, merge it, push it, prune the cache.",
    )
    parser.add_argument("--version", action="version", version=f"lora-rec {lora_rec.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    cli_lists.add_commands(commands)

    info = commands.add_parser("info", help="what a bundle holds and how well it ranks")
    info.add_argument("bundle", help=cli_hub.BUNDLE_HELP)
    cli_hub.add_revision(info)
    info.set_defaults(run=_info)

    merge = commands.add_parser(
        "merge",
        help="write each tower as a plain transformers model, after a look at what that changes",
        description="Merges each adapter into its base in full precision and writes OUT/user_tower and"
        " OUT/item_tower. A base in 8 or 4 bit is dequantised, so that the lists stay. Lists over made-up"
        " histories of the bundle's items are compared before and after.",
        epilog="example: lora-rec merge runs/quickstart runs/merged",
    )
    merge.add_argument("bundle", help=f"{cli_hub.BUNDLE_HELP}; or the output of recipes/pretrain.py")
    cli_hub.add_revision(merge)
    merge.add_argument("output", help="a folder that is not there yet")
    merge.add_argument("--user-backbone", help="where the user tower's base lies, if it was a local folder")
    merge.add_argument("--item-backbone", help="where the item tower's base lies, if it was a local folder")
    merge.add_argument("--backbone", help="where the base of recipes/pretrain.py lies, if it was a folder")
    merge.add_argument(
        "--original-base",
        action="store_true",
        help="merge into the base as it was before 8 or 4 bit, instead of what those stand for",
    )
    merge.add_argument(
        "--sentence-transformers",
        action="store_true",
        help="write models of that library, with pooling and map in them",
    )
    merge.add_argument("--force", action="store_true", help="write although lists change")
    merge.set_defaults(run=_merge)

    plan = commands.add_parser(
        "plan",
        help="what a recipe will cost, before anything trains: parameters, memory, disk",
        description="Prints what a recipe of recipes/two_tower.py needs: trainable parameters, the memory of"
        " weights, gradients, optimizer and activations, the size of the prefix cache, and whether that fits"
        " this machine. No weights are loaded; a model that is not on this machine yet is fetched first.",
        epilog="example: lora-rec plan recipes/configs/quickstart.yaml item_tower.precision=4bit",
    )
    plan.add_argument("recipe", help="YAML file, see recipes/configs")
    plan.add_argument("overrides", nargs="*", help="section.field=value, e.g. item_tower.adapter=adalora")
    plan.set_defaults(run=_plan)

    cli_cache.add_commands(commands)
    cli_data.add_commands(commands)
    cli_hub.add_commands(commands)
    cli_index.add_commands(commands)
    cli_milvus.add_commands(commands)
    cli_tune.add_commands(commands)
    cli_report.add_commands(commands)
    cli_scale.add_commands(commands)
    return parser


def _info(arguments: argparse.Namespace) -> None:
    from lora_rec.metrics import format_table

    rec = lora_rec.load(arguments.bundle, revision=arguments.revision)
    manifest = rec.manifest
    size = sum(p.stat().st_size for p in Path(rec.folder or arguments.bundle).rglob("*") if p.is_file())
    print(f"{arguments.bundle}: {manifest.n_items:,} items, width {manifest.width}, {size / 1e6:.1f} MB, ok")
    for name in ("user_tower", "item_tower"):
        tower = manifest.towers.get(name)
        if tower is None:
            continue
        revision = f" at {tower.revision[:12]}" if tower.revision else ""
        layers = "every layer" if tower.trained_layers is None else f"the last {tower.trained_layers} layers"
        print(
            f"  {name}: {tower.base_model_id}{revision}, {tower.precision}, {tower.pooling} pooling,"
            f" adapter {tower.adapter} on {layers}"
        )
    ranking = manifest.ranking
    own = f"{ranking.strategy} ({ranking.space}), diversity {ranking.diversity:g}"
    print(f"  lists: {own if ranking.diversity else 'relevance order, diversity 0'}")
    print(f"  item text:    {manifest.text.item_template}")
    print(f"  history text: the last {manifest.text.history_length} of {manifest.text.history_item_template}")
    print(f"  versions: {', '.join(f'{name} {v}' for name, v in manifest.versions.items())}")
    rows = {name: row for name, row in rec.metrics.items() if isinstance(row, dict)}
    metric = next((key for row in rows.values() for key in row if key.startswith("ndcg@")), "")
    systems = {name: row for name, row in rows.items() if metric in row}
    if systems:
        at_k = metric.removeprefix("ndcg")
        columns = ["auc", *(name + at_k for name in ("recall", "ndcg", "ild", "coverage"))]
        there = [name for name in columns if all(name in row for row in systems.values())]
        print(format_table(systems, columns=there))


def _merge(arguments: argparse.Namespace) -> None:
    if (Path(arguments.bundle) / PRETRAINED).is_file():
        _merge_pretrained(arguments)
        return
    from lora_rec.hub import find_bundle
    from lora_rec.pipeline.merge import LEAST_OVERLAP, merge_bundle

    if arguments.backbone is not None:
        raise BundleError("--backbone: a bundle has two; use --user-backbone and --item-backbone")
    reports = merge_bundle(
        find_bundle(arguments.bundle, revision=arguments.revision),
        arguments.output,
        user_backbone=arguments.user_backbone,
        item_backbone=arguments.item_backbone,
        original_base=arguments.original_base,
        sentence_transformers=arguments.sentence_transformers,
        force=arguments.force,
    )
    for report in reports:
        print(
            f"{report.tower}: {report.overlap:.4f} of the top-10 lists stay (lowest cosine of a vector"
            f" {report.cosine:.6f}); {report.overlap_as_served:.4f} of those that the bundle serves"
        )
        if report.overlap_as_served < LEAST_OVERLAP <= report.overlap:
            print(
                "  the rest is not the merge: the bundle computes in less than fp32, the plain model in fp32"
            )
    print(f"wrote {arguments.output}/user_tower and {arguments.output}/item_tower")


def _merge_pretrained(arguments: argparse.Namespace) -> None:
    from lora_rec.pipeline.pretrain_merge import merge_pretrained

    names = ("user_backbone", "item_backbone", "original_base", "sentence_transformers", "force", "revision")
    if without_effect := [f"--{n.replace('_', '-')}" for n in names if getattr(arguments, n)]:
        raise BundleError(f"{', '.join(without_effect)}: has no effect on one adapter; leave it out")
    cosine = merge_pretrained(arguments.bundle, arguments.output, backbone=arguments.backbone)
    print(
        f"wrote {arguments.output} (lowest cosine of a vector {cosine:.6f}); in a recipe:"
        f" user_tower.backbone={arguments.output} or item_tower.backbone={arguments.output}"
    )


def _plan(arguments: argparse.Namespace) -> None:
    from lora_rec.pipeline.plan import format_plan, make_plan
    from lora_rec.recipe import Recipe

    print(format_plan(make_plan(Recipe.load(arguments.recipe, overrides=arguments.overrides))))


if __name__ == "__main__":
    raise SystemExit(main())
