"""What a recipe's data is like: numbers, texts as the towers read them, and what usually goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lora_rec.data.dataset import Dataset
from lora_rec.data.events import find_events
from lora_rec.data.inspect import Statistics, find_warnings, summarize
from lora_rec.data.inspect_texts import (
    TextStatistics,
    find_cut_warnings,
    find_item_text_warnings,
    find_script_warnings,
    sample_texts,
    summarize_texts,
)
from lora_rec.data.lists import Lists
from lora_rec.data.sources import read_table
from lora_rec.data.validate import DataProblem
from lora_rec.pipeline.data import find_category_problem, find_length_problem
from lora_rec.pipeline.social import read_friendships, render_users
from lora_rec.rank.categories import Categories
from lora_rec.recipe import DataSection, RankingSection, Recipe
from lora_rec.text.templates import UNTITLED, find_fields, render_items

# Backbones that have read hardly anything but English, by a part of their name.
ENGLISH_ONLY = ("all-minilm", "smollm2", "bert-base-uncased", "bert-base-cased", "gpt2", "pythia", "opt-")
SAMPLE_USERS = 2_000


@dataclass(frozen=True)
class DataReport:
    """What `lora-rec check` says."""

    statistics: Statistics
    item_texts: TextStatistics
    user_texts: TextStatistics
    item: tuple[str, str]
    """Id and text of the most popular item."""
    user: tuple[str, str]
    """Id and text of a user with a middling number of interactions, and with friends if they are told."""
    notes: tuple[str, ...]
    warnings: list[DataProblem]

    def __str__(self) -> str:
        lines = [
            str(self.statistics),
            f"item texts: {self.item_texts}",
            f"user texts: {self.user_texts}",
            f"item {self.item[0]} as the item tower reads it:\n  {self.item[1]}",
            f"user {self.user[0]} as the user tower reads it:\n  {self.user[1]}",
        ]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"warning: {warning}" for warning in self.warnings] or ["no warnings"]
        return "\n".join(lines)


def find_event_problems(section: DataSection) -> list[DataProblem]:
    """Finds a column of somebody's own table that says what each interaction was, and that no run reads."""
    if section.source != "files":
        return []
    table = read_table(section.interactions, name="interactions")
    read = (section.user_column, section.item_column, section.time_column, section.rating_column)
    events = find_events(table[[column for column in table.columns if column not in read]])
    if events is None:
        return []
    what = f"{events} says what each interaction was, and every one counts alike"
    return [DataProblem("interactions", what, "keep the kinds that are a choice, before the run", len(table))]


def inspect_data(recipe: Recipe, dataset: Dataset, further: Sequence[DataProblem] = ()) -> DataReport:
    """Measures a recipe's data, renders its texts, and finds what is doubtful.

    Texts tell all that the user, and friends where the recipe wants them, took: the data is not split here.

    Args:
        recipe: its `text` section and towers say how texts are written and cut.
        dataset: what its `data` section gives.
        further: warnings of what is not in the data set, such as its split.

    Raises:
        DataError: a template names a field that the item table lacks.
    """
    fields = dataset.item_fields
    text = recipe.text
    items = render_items(text.item_template, fields, where="text.item_template")
    in_history = render_items(text.history_item_template, fields, where="text.history_item_template")
    histories = Lists.from_groups(dataset.users, dataset.items, n_groups=dataset.n_users)
    chosen = np.linspace(0, dataset.n_users - 1, min(dataset.n_users, SAMPLE_USERS)).astype(int)
    friendships = read_friendships(recipe.data, dataset) if text.is_social else None
    by_count = np.argsort(histories.counts, kind="stable")
    notes = dataset.notes
    if friendships is not None:
        by_count = by_count[np.isin(by_count, friendships.pairs)]
        notes += (f"{len(friendships.pairs):,} friendships of {len(by_count):,} users", *friendships.notes)
    middle = int(by_count[len(by_count) // 2]) if len(by_count) else 0
    shown = np.array([middle, *chosen])
    users = render_users(
        text,
        dataset,
        histories.take(shown),
        in_history,
        users=shown,
        friendships=friendships,
        friend_histories=histories,
    )
    read = ["" if item == UNTITLED else item for item in items]
    named = {name: fields[name] for name in find_fields(text.item_template)}
    warnings = [*find_warnings(dataset, min_rating=recipe.data.min_rating), *further]
    warnings += find_item_text_warnings(
        read, item_ids=dataset.item_ids.tolist(), fields=named, max_tokens=recipe.item_tower.max_tokens
    )
    max_tokens = recipe.user_tower.max_tokens
    warnings += find_cut_warnings(users[1:], where="user texts", section="user_tower", max_tokens=max_tokens)
    warnings += find_script_warnings(sample_texts(read), english=_english_towers(recipe))
    if problem := find_category_problem(recipe.ranking, dataset):
        warnings.append(problem)
    if problem := find_length_problem(recipe.ranking, dataset):
        warnings.append(problem)
    if recipe.ranking.category_field is not None:
        notes += (_categories_line(recipe.ranking, dataset),)
    top = int(np.bincount(dataset.items).argmax())
    return DataReport(
        statistics=summarize(dataset),
        item_texts=summarize_texts(read),
        user_texts=summarize_texts(users[1:]),
        item=(str(dataset.item_ids[top]), items[top]),
        user=(str(dataset.user_ids[middle]), users[0]),
        notes=notes,
        warnings=warnings,
    )


def _categories_line(section: RankingSection, dataset: Dataset) -> str:
    field = str(section.category_field)
    found = Categories.of_items(dataset.item_fields, field, separator=section.category_separator)
    largest = np.argsort(-(found.weights > 0).sum(axis=0), kind="stable")[:5]
    named = ", ".join(repr(found.names[column]) for column in largest)
    return f"{len(found.names):,} categories in {field!r}, the largest: {named}"


def _english_towers(recipe: Recipe) -> dict[str, str]:
    towers = {"user_tower": recipe.user_tower.backbone, "item_tower": recipe.item_tower.backbone}
    return {
        name: backbone
        for name, backbone in towers.items()
        if any(part in backbone.lower() for part in ENGLISH_ONLY)
    }
