"""From the recipe's `data` and `text` sections to a split and to texts."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Dataset, Split
from lora_rec.data.examples import Examples, draw_examples
from lora_rec.data.filters import keep_frequent, keep_rated, ratings_as_strengths
from lora_rec.data.publishers import load_published
from lora_rec.data.separators import find_other_separator
from lora_rec.data.sources import load_dataset, load_movielens_small
from lora_rec.data.splits import (
    leave_last_basket_out,
    leave_last_out,
    split_at_last_day,
    split_at_quantiles,
    split_randomly,
)
from lora_rec.data.validate import DataProblem
from lora_rec.errors import DataError
from lora_rec.pipeline.social import read_friendships, render_users
from lora_rec.rank.categories import Categories
from lora_rec.recipe import DataSection, RankingSection, Recipe
from lora_rec.text.templates import render_items

if TYPE_CHECKING:
    from lora_rec.data.sources import Source

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Texts:
    """What the language models read."""

    items: list[str]
    """(N), one per item."""
    users: list[str]
    """(T), the distinct texts of all histories."""
    example_texts: NDArray[np.int64]
    """(M,), which of `users` is each training example's."""
    validation_texts: NDArray[np.int64]
    """(V,)"""
    test_texts: NDArray[np.int64]
    """(U,)"""
    list_texts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """(L,), that of the history before each shown list that is learned from."""

    @property
    def trained(self) -> NDArray[np.int64]:
        """Which of `users` are trained on, each once."""
        return np.unique(np.concatenate([self.example_texts, self.list_texts]))


def prepare_data(section: DataSection) -> tuple[Dataset, Split]:
    """Reads, checks, filters and splits the data."""
    dataset = load_data(section)
    return dataset, split_data(section, dataset)


def load_data(section: DataSection) -> Dataset:
    """Reads, checks and filters the data."""
    dataset = _read(section)
    if section.min_interactions > 1:
        dataset = keep_frequent(dataset, min_interactions=section.min_interactions)
    return dataset


def split_data(section: DataSection, dataset: Dataset) -> Split:
    """Splits the data as the section says."""
    if section.split == "time":
        quantiles = {"validation": section.validation_quantile, "test": section.test_quantile}
        return split_at_quantiles(dataset, **quantiles)
    if section.split == "last_day":
        return split_at_last_day(dataset)
    if section.split == "random":
        return split_randomly(dataset, seed=section.split_seed)
    if section.split == "last_basket":
        return leave_last_basket_out(dataset)
    # The Amazon sequences of 2014 have no times, but their order is that of time.
    ordered = section.time_column is None or section.source == "amazon"
    return leave_last_out(dataset, ordered=ordered)


def describe_data(dataset: Dataset, split: Split) -> dict[str, Any]:
    """Gives what a bundle keeps of its data: numbers, and by which to tell the same data and split again.

    The fingerprint is over all interactions by their place in the split. It holds no user, but whoever has
    the whole data set can tell that it is this one.
    """
    parts = (split.train_log, split.validation_log)
    arrays = [array for log in parts for array in (log.users, log.items)]
    for known in (split.test.histories, split.test.targets):
        arrays += [known.values, known.offsets]
    digest = hashlib.sha256("\n".join(dataset.item_ids).encode())
    for array in (*arrays, split.validation.users, split.test.users):
        digest.update(f"{len(array)};".encode() + array.astype("<i8").tobytes())
    return {
        "split": split.report.name,
        "n_users": dataset.n_users,
        "n_items": dataset.n_items,
        "n_interactions": dataset.n_interactions,
        "kept": split.report.kept,
        "dropped": split.report.dropped,
        "fingerprint": digest.hexdigest(),
    }


def _read(section: DataSection) -> Dataset:
    if section.source == "movielens-small":
        return load_movielens_small(min_rating=section.min_rating)
    if section.source == "files":
        return load_tables(section, section.interactions, section.items)
    dataset = load_published(section.source, section.root, variant=section.variant).dataset
    return dataset if section.min_rating is None else keep_rated(dataset, min_rating=section.min_rating)


def load_tables(section: DataSection, interactions: Source, items: Source) -> Dataset:
    """Reads two tables, given as paths or read already, with the section's columns."""
    dataset = load_dataset(
        interactions,
        items,
        user_column=section.user_column,
        item_column=section.item_column,
        item_id_column=section.item_id_column,
        time_column=section.time_column,
        rating_column=section.rating_column,
        text_columns=section.text_columns,
        min_rating=section.min_rating,
    )
    return ratings_as_strengths(dataset) if section.ratings_are == "counts" else dataset


def prepare_texts(recipe: Recipe, dataset: Dataset, split: Split) -> tuple[Examples, Texts]:
    """Draws the training examples and writes items and histories down.

    Where the recipe wants friends in the user texts, what they have is what they have in training.
    """
    known = split.train_histories()
    friendships = read_friendships(recipe.data, dataset) if recipe.text.is_social else None
    examples = draw_examples(
        known,
        per_user=recipe.train.examples_per_user,
        history_length=recipe.text.history_length,
        n_targets=recipe.train.targets_per_example,
        seed=recipe.train.seed,
    )
    fields = dataset.item_fields
    items = render_items(recipe.text.item_template, fields, where="text.item_template")
    in_history = render_items(recipe.text.history_item_template, fields, where="text.history_item_template")
    parts = (examples, split.validation, split.test)
    users = [
        text
        for part in parts
        for text in render_users(
            recipe.text,
            dataset,
            part.histories,
            in_history,
            users=part.users,
            friendships=friendships,
            friend_histories=known,
        )
    ]
    distinct, numbers = number_texts(users)
    cuts = np.cumsum([len(part) for part in parts])[:-1]
    example_texts, validation_texts, test_texts = np.split(numbers, cuts)
    return examples, Texts(items, distinct, example_texts, validation_texts, test_texts)


def read_categories(section: RankingSection, dataset: Dataset) -> Categories | None:
    """Reads the items' categories; None where the recipe names no field for them.

    Raises:
        DataError: the item table lacks the field, or it has too many values for categories.
    """
    if section.category_field is None:
        return None
    categories = Categories.of_items(
        dataset.item_fields, section.category_field, separator=section.category_separator
    )
    if problem := find_category_problem(section, dataset):
        logger.warning("%s", problem)
    return categories


def find_category_problem(section: RankingSection, dataset: Dataset) -> DataProblem | None:
    """Says where the cells with the categories seem to be parted otherwise than the recipe says."""
    values = dataset.item_fields.get(section.category_field or "", ())
    other = find_other_separator(values, section.category_separator)
    if other is None:
        return None
    cells = [value for value in values if other in value]
    return DataProblem(
        f"ranking.category_separator {section.category_separator!r}",
        f"{len(cells):,} of {len(values):,} cells of {section.category_field!r} hold {other!r}, and each of"
        " them counts as one category",
        f"set ranking.category_separator={other!r} if that parts them",
        len(cells),
        tuple(cells[:2]),
    )


def check_list_length(section: RankingSection, dataset: Dataset) -> None:
    """Refuses lists that are longer than the catalogue, before any training.

    Raises:
        DataError: there are fewer items than a list has places.
    """
    if problem := find_length_problem(section, dataset):
        raise DataError(str(problem))


def find_length_problem(section: RankingSection, dataset: Dataset) -> DataProblem | None:
    """Says where lists are longer than the catalogue."""
    if section.k <= dataset.n_items:
        return None
    what = f"lists have {section.k} places, and there are {dataset.n_items} items"
    return DataProblem("ranking.k", what, f"set ranking.k={dataset.n_items}, or less")


def number_texts(texts: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Gives the distinct texts, and which of them each is.

    >>> number_texts(["b", "a", "b"])[0]
    ['a', 'b']
    """
    distinct, numbers = np.unique(np.array(texts, dtype=object), return_inverse=True)
    return distinct.tolist(), numbers
