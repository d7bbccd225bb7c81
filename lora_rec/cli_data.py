"""The commands `lora-rec init` and `lora-rec check`: somebody's own tables, from files to a recipe."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_rec.errors import DataError
from lora_rec.text.domains import DOMAINS

if TYPE_CHECKING:
    from lora_rec.data.column_names import Role

_RECIPES = (".yaml", ".yml")


def add_commands(commands: Any) -> None:
    """Adds both commands to the parser's."""
    init = commands.add_parser(
        "init",
        help="write a recipe for two tables: interactions and items",
        description="Guesses which table is which and what each column is, says why, asks where it is"
        " not sure, and writes a recipe with comments that runs as it is.",
        epilog="example: lora-rec init data/shop --domain e-commerce",
    )
    init.add_argument("folder", help="holds the two tables: CSV, TSV, Parquet or JSON Lines")
    init.add_argument("--interactions", help="this table, wherever it lies")
    init.add_argument("--items", help="this table, wherever it lies")
    init.add_argument("--domain", choices=list(DOMAINS), help="sets length of histories, diversity and split")
    init.add_argument("--output", help="the recipe to write (default: FOLDER/recipe.yaml)")
    init.add_argument("--yes", action="store_true", help="take every guess, ask nothing")
    init.add_argument("--force", action="store_true", help="replace a recipe that is there")
    _add_columns(init)
    init.set_defaults(run=_init)

    check = commands.add_parser(
        "check",
        help="read data as a run would and say what is in it, or all that is wrong",
        description="Prints numbers, one user and one item as the towers read them, and a warning for each"
        " thing that usually goes wrong. Columns that are not named are guessed.",
        epilog="example: lora-rec check clicks.csv --items films.csv",
    )
    check.add_argument("data", help="interactions: CSV, TSV, Parquet or JSON Lines; or a recipe (.yaml)")
    check.add_argument(
        "overrides", nargs="*", help="of a recipe: section.field=value, e.g. text.history_length=20"
    )
    check.add_argument("--items", help="item table; needed unless DATA is a recipe")
    _add_columns(check)
    check.set_defaults(run=_check)


def _add_columns(parser: argparse.ArgumentParser) -> None:
    for role in ("user", "item", "item-id"):
        parser.add_argument(f"--{role}-column", metavar="NAME")
    parser.add_argument("--time-column", metavar="NAME", help="'none' if the rows are in order already")
    parser.add_argument("--rating-column", metavar="NAME", help="'none' if every interaction counts alike")
    parser.add_argument("--text-columns", metavar="A,B", help="of the item table, the title first")


def _given(arguments: argparse.Namespace) -> dict[Role, str | None]:
    """Gives the columns that were named; None for 'none'."""
    roles: tuple[Role, ...] = ("user", "item", "item_id", "time", "rating")
    values = {role: getattr(arguments, f"{role}_column") for role in roles}
    absent = ("time", "rating")
    return {
        role: None if role in absent and value.lower() == "none" else value
        for role, value in values.items()
        if value is not None
    }


def _texts(arguments: argparse.Namespace) -> list[str] | None:
    if arguments.text_columns is None:
        return None
    return [name.strip() for name in arguments.text_columns.split(",") if name.strip()]


def _init(arguments: argparse.Namespace) -> None:
    from lora_rec.data.guess_tables import find_tables
    from lora_rec.pipeline.init import draft_recipe
    from lora_rec.pipeline.recipe_file import check_free, write_recipe
    from lora_rec.pipeline.settle import format_guess, settle_columns

    path = Path(arguments.output or Path(arguments.folder) / "recipe.yaml")
    choose = None if arguments.yes or not sys.stdin.isatty() else _choose
    given = _given(arguments)
    tables = find_tables(
        arguments.folder,
        interactions=arguments.interactions,
        items=arguments.items,
        given=given,
        choose=choose,
    )
    check_free(path, force=arguments.force)
    guess = settle_columns(tables, given=given, text_columns=_texts(arguments), choose=choose)
    print(format_guess(tables, guess))
    output = f"runs/{Path(arguments.folder).resolve().name}"
    with warnings.catch_warnings():  # `check` says the same, and what to do
        warnings.simplefilter("ignore", UserWarning)
        draft = draft_recipe(tables, guess, output=output, domain=arguments.domain)
    write_recipe(path, draft.text, force=arguments.force)
    print(f"\nwrote {path}; read it, change what you know better, then:")
    print(f"  lora-rec check {path}    # what is in the data, and what may go wrong")
    print(f"  lora-rec plan {path}     # what the run will cost")
    print(f"  accelerate launch -q recipes/two_tower.py {path}")


def _choose(question: str, options: Sequence[str]) -> str:
    """Asks on the terminal: a number, a name, or nothing for the first."""
    print(question)
    for number, option in enumerate(options, start=1):
        print(f"  {number}  {option}")
    while True:
        answer = input(f"number or name [{options[0]}]: ").strip()
        if not answer:
            return options[0]
        if answer in options:
            return answer
        if answer.isdigit() and 1 <= int(answer) <= len(options):
            return options[int(answer) - 1]
        print(f"{answer!r} is none of them")


def _check(arguments: argparse.Namespace) -> None:
    from lora_rec.data.inspect import find_split_warnings
    from lora_rec.pipeline.check import find_event_problems, inspect_data
    from lora_rec.pipeline.data import load_data, split_data
    from lora_rec.recipe import Recipe

    with warnings.catch_warnings():  # what the loader warns of is in the report, with what to do
        warnings.simplefilter("ignore", UserWarning)
        if arguments.data.endswith(_RECIPES):
            _refuse_columns(arguments)
            recipe = Recipe.load(arguments.data, overrides=arguments.overrides)
            dataset = load_data(recipe.data)
        else:
            if arguments.overrides:
                raise DataError(f"check: {arguments.overrides[0]!r} changes a recipe, and DATA is a table")
            if not Path(arguments.data).exists():
                raise DataError(f"check: there is no {arguments.data!r}; give a recipe, or the interactions")
            draft = _draft(arguments)
            recipe, dataset = draft.recipe, draft.dataset
        further = find_event_problems(recipe.data)
    try:
        report = split_data(recipe.data, dataset).report
    except DataError:
        print(inspect_data(recipe, dataset, further))  # what it warns of may be why nothing is left
        raise
    print(inspect_data(recipe, dataset, [*further, *find_split_warnings(report)]))
    print(report)


def _refuse_columns(arguments: argparse.Namespace) -> None:
    if _given(arguments) or arguments.text_columns or arguments.items:
        raise DataError(
            f"check: {arguments.data} names its tables and columns itself; leave --items and --...-column out"
        )


def _draft(arguments: argparse.Namespace) -> Any:
    """Reads two tables under the recipe that `init` would write, but with every rating kept."""
    from lora_rec.data.guess_tables import find_tables
    from lora_rec.pipeline.init import draft_recipe
    from lora_rec.pipeline.settle import format_guess, settle_columns

    if not arguments.items:
        raise DataError(
            "check: the item table is missing; give --items FILE, or a recipe instead of the interactions"
        )
    tables = find_tables(".", interactions=arguments.data, items=arguments.items)
    guess = settle_columns(tables, given=_given(arguments), text_columns=_texts(arguments))
    print(format_guess(tables, guess), end="\n\n")
    return draft_recipe(tables, guess, output="runs/check", likes_only=False)
