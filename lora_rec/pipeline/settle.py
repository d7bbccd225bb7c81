"""From guessed columns to settled ones: what is not sure is asked, and what nobody can tell is an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lora_rec.data.column_names import Role
from lora_rec.data.guess import ColumnGuess, Guess, guess_columns
from lora_rec.data.guess_tables import Choose, Tables
from lora_rec.errors import DataError

_REQUIRED = ("user", "item", "item_id")


def settle_columns(
    tables: Tables,
    *,
    given: Mapping[Role, str | None],
    text_columns: Sequence[str] | None = None,
    choose: Choose | None = None,
) -> Guess:
    """Guesses every column, asking where a guess is not sure.

    Args:
        tables: the two tables.
        given: columns that are known.
        text_columns: of the item table, the title first, if they are known.
        choose: gets a question and its options, the guess first; without it the guess is taken.

    Raises:
        DataError: nothing speaks for one column, and nobody can be asked.
    """
    known = dict(given)
    while True:
        guess = guess_columns(tables.interactions, tables.items, given=known, text_columns=text_columns)
        unsure = [column for column in guess.columns if not column.sure and column.role not in known]
        if not unsure or choose is None:
            break
        known[unsure[0].role] = _ask(unsure[0], tables, choose)
    for column in guess.columns:
        if column.column is None and column.role in _REQUIRED:
            raise _cannot_tell(column, tables)
    if guess.texts.title is None:
        reasons = ", ".join(f"{name}: {why}" for name, why in guess.texts.left_out.items()) or "only the ids"
        raise DataError(
            f"{tables.items_path}: no column has words for the towers to read ({reasons});"
            " pass --text-columns A,B"
        )
    return guess


def _ask(column: ColumnGuess, tables: Tables, choose: Choose) -> str | None:
    items = column.role == "item_id"
    table, path = (
        (tables.items, tables.items_path) if items else (tables.interactions, tables.interactions_path)
    )
    rest = [str(name) for name in table.columns]
    none = [] if column.role in _REQUIRED else ["none"]
    options = [*(none if column.column is None else [column.column]), *column.options, *rest, *none]
    question = f"Which column of {path} is the {column.role.replace('_', ' ')}? ({column.why})"
    answer = choose(question, list(dict.fromkeys(options)))
    return None if answer == "none" and none else answer


def _cannot_tell(column: ColumnGuess, tables: Tables) -> DataError:
    items = column.role == "item_id"
    table, path = (
        (tables.items, tables.items_path) if items else (tables.interactions, tables.interactions_path)
    )
    options = ", ".join(column.options or [str(name) for name in table.columns])
    role = column.role.replace("_", " ")
    return DataError(
        f"{path}: cannot tell which column is the {role}, {column.why} (columns: {options});"
        f" pass --{role.replace(' ', '-')}-column NAME"
    )


def format_guess(tables: Tables, guess: Guess) -> str:
    """Writes what was guessed, and why, a line for each column."""
    lines = [
        f"interactions: {tables.interactions_path} ({len(tables.interactions):,} rows)",
        f"items:        {tables.items_path} ({len(tables.items):,} rows); told by: {tables.why}",
    ]
    width = max(len(column.column or "none") for column in guess.columns)
    for column in guess.columns:
        mark = "" if column.sure else "  (not sure)"
        name = column.role.replace("_", " ")
        lines.append(f"  {name:<8} {column.column or 'none':<{width}}  {column.why}{mark}")
    if guess.events is not None:
        lines.append(
            f"  events   {guess.events}: not read, every row counts; keep the kinds that you want first"
        )
    lines.append("  texts    " + ", ".join(f"{name} ({kind})" for name, kind in guess.texts.kinds.items()))
    if guess.texts.left_out:
        left = (f"{name} ({why})" for name, why in guess.texts.left_out.items())
        lines.append("  left out " + ", ".join(left))
    return "\n".join(lines)
