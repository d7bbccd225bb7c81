"""Which column is the user, the item, the time, the rating: guessed from names and from what cells hold."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lora_rec.data.column_names import Role, names
from lora_rec.data.columns import Numbers, read_numbers, read_times
from lora_rec.data.events import EventColumn, find_events
from lora_rec.data.guess_texts import TextColumns, guess_texts
from lora_rec.data.id_pairs import IdPair, distinct_ids, find_id_pairs
from lora_rec.data.validate import check_table, raise_problems
from lora_rec.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SAMPLE = 20_000  # rows in which a column's kind is looked for
EARLIEST, LATEST = 631_152_000, 4_102_444_800  # 1990 and 2100 in unix seconds
CLEAR = 0.3  # how far ahead the best of two guesses has to be to need no question
TIE = 0.05
CELL_TYPES = (str, int, float, datetime.date, decimal.Decimal)  # the last two are what Parquet's give


@dataclass(frozen=True)
class ColumnGuess:
    """One column's part, and what speaks for it."""

    role: Role
    column: str | None
    """None where there is no such column (time, rating), or where nothing speaks for one."""
    why: str
    sure: bool = True
    """False where it is worth a question."""
    options: tuple[str, ...] = ()
    """What else it may be, the guess included, best first."""


@dataclass(frozen=True)
class Guess:
    """Every column's part in two tables."""

    user: ColumnGuess
    item: ColumnGuess
    item_id: ColumnGuess
    """In the item table."""
    time: ColumnGuess
    rating: ColumnGuess
    texts: TextColumns
    events: EventColumn | None = None
    """What says of each interaction what it was; it is read by nobody."""

    @property
    def columns(self) -> tuple[ColumnGuess, ...]:
        """The five guesses, in the order in which they are asked for."""
        return (self.item, self.item_id, self.user, self.time, self.rating)


def guess_columns(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    *,
    given: Mapping[Role, str | None] | None = None,
    text_columns: Sequence[str] | None = None,
) -> Guess:
    """Guesses what each column is.

    Ids that two columns share weigh most, since a name can be anything; then names, then what cells hold.

    Args:
        interactions: one row per interaction.
        items: one row per item.
        given: columns that are known; None says that there is none.
        text_columns: those of the item table to write items with, the title first, if they are known.

    Raises:
        DataError: a table is empty, or a given column is not there.
    """
    given = given or {}
    there = [column for role, column in given.items() if role != "item_id" and column]
    problems = check_table(interactions, name="interactions", ids=(), texts=there).problems
    own = [column for role, column in given.items() if role == "item_id" and column]
    own += text_columns or ()
    raise_problems([*problems, *check_table(items, name="items", ids=(), texts=own).problems])
    _refuse_mappings(interactions, given)
    pairs = find_id_pairs(interactions, items, given=given)
    item = _guess_item(interactions, pairs, given)
    item_id = _guess_item_id(items, pairs, item, given)
    sample = _sample(interactions)
    free = [str(c) for c in interactions.columns if str(c) not in (item.column, *there)]
    time = _given("time", given) or _guess_time(sample[[c for c in free if c != given.get("user")]])
    free = [c for c in free if c != time.column]
    rating = _given("rating", given) or _guess_rating(sample[free])
    user = _given("user", given) or _guess_user(
        interactions[[c for c in free if c != rating.column and c not in rating.options]]
    )
    texts = guess_texts(items, id_column=item_id.column, chosen=text_columns)
    taken = {column.column for column in (user, item, time, rating)}
    events = find_events(sample[[c for c in map(str, sample.columns) if c not in taken]])
    return Guess(user, item, item_id, time, rating, texts, events)


def _refuse_mappings(interactions: pd.DataFrame, given: Mapping[Role, str | None]) -> None:
    """Refuses a log whose user, or item, is a mapping, such as {"id": 7}: another column would be taken."""
    for column in map(str, interactions.columns):
        role = next((role for role in ("user", "item") if names(column, role)), None)
        cells = interactions[column].dropna()
        if role and role not in given and len(cells) and isinstance(cells.iloc[0], dict):
            raise DataError(
                f"interactions.{column}: holds mappings, such as {str(cells.iloc[0])[:60]}; make each of"
                f" their keys a column, e.g. by pandas.json_normalize, or name the {role} by"
                f" --{role}-column"
            )


def _given(role: Role, given: Mapping[Role, str | None]) -> ColumnGuess | None:
    return ColumnGuess(role, given[role], "as given") if role in given else None


def _sample(table: pd.DataFrame) -> pd.DataFrame:
    """Gives rows from all over the table: the first ones may be one user's, or one day's."""
    if len(table) <= SAMPLE:
        return table
    rows = np.random.default_rng(0).choice(len(table), SAMPLE, replace=False)
    return table.iloc[np.sort(rows)].reset_index(drop=True)


def _guess_item(
    interactions: pd.DataFrame, pairs: list[IdPair], given: Mapping[Role, str | None]
) -> ColumnGuess:
    options = tuple(dict.fromkeys(pair.item for pair in pairs))
    if given.get("item"):
        return ColumnGuess("item", given["item"], "as given")
    if not pairs:
        named = tuple(str(c) for c in interactions.columns if names(str(c), "item"))
        why = "no column shares its ids with a column of the item table"
        return ColumnGuess("item", named[0] if len(named) == 1 else None, why, sure=False, options=named)
    best = {column: max(p.score for p in pairs if p.item == column) for column in options}
    return _choose("item", best, why={options[0]: pairs[0].why})


def _guess_item_id(
    items: pd.DataFrame, pairs: list[IdPair], item: ColumnGuess, given: Mapping[Role, str | None]
) -> ColumnGuess:
    if given.get("item_id"):
        return ColumnGuess("item_id", given["item_id"], "as given")
    chosen = {pair.item_id: pair for pair in pairs if pair.item == item.column}
    if not chosen:
        named = tuple(str(c) for c in items.columns if str(c) == item.column or names(str(c), "id"))
        column = item.column if item.column in named else named[0] if len(named) == 1 else None
        return ColumnGuess("item_id", column, "its name alone", sure=False, options=named)
    why = {name: f"has {pair.contained:.0%} of the ids in {pair.item}" for name, pair in chosen.items()}
    return _choose("item_id", {name: pair.score for name, pair in chosen.items()}, why=why)


def _choose(role: Role, scores: Mapping[str, float], *, why: Mapping[str, str]) -> ColumnGuess:
    """Takes the best column; unsure where another is near, none where two are alike."""
    order = tuple(sorted(scores, key=lambda column: -scores[column]))
    lead = scores[order[0]] - scores[order[1]] if len(order) > 1 else np.inf
    if lead < TIE:
        return ColumnGuess(role, None, f"{order[0]} and {order[1]} look alike", sure=False, options=order)
    return ColumnGuess(role, order[0], why.get(order[0], ""), sure=lead >= CLEAR, options=order)


def _guess_user(table: pd.DataFrame) -> ColumnGuess:
    """Guesses the user among the columns that are left: by name, or the only one whose ids repeat."""
    scores: dict[str, float] = {}
    why = {}
    for column in map(str, table.columns):
        ids = distinct_ids(table[column])
        named = 3.0 * names(column, "user") or 2.0 * names(column, "session")
        if ids is None or not len(ids) or (len(ids) < 2 and not named):
            continue
        mean = len(table) / len(ids)
        if named or mean > 1.01:
            scores[column] = named + 0.5 * (bool(named) and names(column, "id"))
            why[column] = f"{'its name; ' if named else ''}{len(ids):,} ids with {mean:.1f} rows each"
    if not scores:
        return ColumnGuess("user", None, "no column is left whose ids repeat", sure=False)
    guess = _choose("user", scores, why=why)
    return guess if guess.column is None or scores[guess.column] else replace(guess, sure=False)


def _guess_time(sample: pd.DataFrame) -> ColumnGuess:
    """Guesses the time: cells that are dates or plausible unix times; of several, the finest."""
    scores: dict[str, float] = {}
    why = {}
    for column in map(str, sample.columns):
        named = names(column, "time")
        found = _read(sample[column], read_times)
        if found is None or found.wrong.mean() > 0.01:
            if named:  # so that the loader says what is wrong with its cells
                scores[column], why[column] = 0.5, "its name; but the cells are no times"
            continue
        if not named and (names(column, "user") or names(column, "session")) and _are_numbers(sample[column]):
            continue  # ids of ten digits look like unix times
        good = found.values[~found.missing]
        plausible = good.size > 0 and bool(np.mean((good >= EARLIEST) & (good < LATEST)) >= 0.9)
        if named or plausible:
            scores[column] = 1.5 * named + 1.5 * plausible + len(np.unique(good)) / (2 * SAMPLE)
            what = (
                f"dates such as {_day(good.min())} and {_day(good.max())}"
                if plausible
                else "numbers, but no unix times from 1990 on"
            )
            why[column] = f"{'its name; ' if named else ''}{what}"
    if not scores:
        return ColumnGuess("time", None, "no column holds times; the rows are taken to be in order")
    order = tuple(sorted(scores, key=lambda column: -scores[column]))
    best, lead = order[0], scores[order[0]] - scores[order[1]] if len(order) > 1 else np.inf
    # A date is nothing else, a number may be anything; 3 are its name and its cells.
    sure = scores[best] >= 3 or (lead > CLEAR and not _are_numbers(sample[best]))
    return ColumnGuess("time", best, why[best], sure=sure, options=order)


def _are_numbers(column: pd.Series) -> bool:
    cells = _read(column, read_numbers)
    return cells is not None and not cells.wrong.any()


def _guess_rating(sample: pd.DataFrame) -> ColumnGuess:
    """Guesses the rating: by name and few small numbers; what only looks like one is offered, not taken."""
    named, alike, why = [], [], {}
    for column in map(str, sample.columns):
        found = _read(sample[column], read_numbers)
        if found is None or found.wrong.any():
            by_name = names(column, "rating") or names(column, "choice")
            if by_name and found is not None and found.wrong.mean() < 0.5 * (~found.missing).mean():
                named.append(column)  # the loader names the cells
                why[column] = f"but no number in {found.wrong.sum():,} of its cells"
            elif by_name and _are_answers(sample[column]):
                alike.append(column)
                why[column] = "two answers; write them as 1 and 0"
            elif names(column, "rating") and sample[column].astype(str).str.contains(r"\d").mean() > 0.5:
                alike.append(column)
                why[column] = "digits, but the cells are no numbers; write 4.5 for 4,5 or 4.5 stars"
            continue
        values = np.unique(found.values[~found.missing])
        if not 2 <= len(values) <= 101 or values[0] < -10 or values[-1] > 100:
            continue
        why[column] = f"{len(values)} values from {values[0]:g} to {values[-1]:g}"
        choice = names(column, "choice") and len(values) == 2
        if names(column, "rating") or choice:
            named.append(column)
        elif 3 <= len(values) <= 10 and values[0] in (0.5, 1) and values[-1] in (5, 10):
            if not names(column, "user") and not names(column, "item"):
                alike.append(column)
    if named:
        return ColumnGuess("rating", named[0], f"its name; {why[named[0]]}", len(named) == 1, tuple(named))
    if alike:
        return ColumnGuess("rating", None, f"{alike[0]} may be one: {why[alike[0]]}", False, tuple(alike))
    return ColumnGuess("rating", None, "no column of few small numbers; every interaction counts alike")


def _are_answers(column: pd.Series) -> bool:
    """Says whether cells are true and false, or yes and no."""
    return set(column.dropna().astype(str).str.strip().str.lower()) in ({"true", "false"}, {"yes", "no"})


def _read(column: pd.Series, read: Callable[[pd.Series], Numbers]) -> Numbers | None:
    """Reads a column, or gives None where its cells have a type that is no number, no date and no text."""
    if column.dtype == object and not column.dropna().map(type).isin(CELL_TYPES).all():
        return None
    return read(column)


def _day(seconds: np.int64) -> str:
    return str(np.datetime64(int(seconds), "s").astype("datetime64[D]"))
