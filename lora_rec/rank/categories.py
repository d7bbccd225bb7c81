"""What categories items have, and how a history is spread over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import DataError, did_you_mean

"""What parts categories in one cell, usually."""
MOST_CATEGORIES = 2000  # a weight is kept for each item and category, and a title is no category


@dataclass(frozen=True, eq=False)
class Categories:
    """Names and weights.

    >>> genres = Categories.from_field(["Crime|Action", "Action", ""])
    >>> genres.names, genres.weights.tolist()
    (('Action', 'Crime'), [[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]])
    >>> genres.mix(Lists.from_arrays([[0, 1, 2], []])).tolist()
    [[0.75, 0.25], [0.0, 0.0]]
    """

    names: tuple[str, ...]
    """(C,), sorted."""
    weights: NDArray[np.float32]
    """(N, C), at least 0; an item's categories share 1, and an item without any has zeros."""

    @classmethod
    def from_field(cls, values: Sequence[str], *, separator: str = "|") -> Categories:
        """Reads an item field such as `Action|Crime`.

        Args:
            values: (N,), one text per item; spaces around a name and names that repeat do not count.
            separator: what parts the categories of one item.

        Raises:
            DataError: the separator is empty, or there are more than 2,000 categories.
        """
        if not separator:
            raise DataError("category_separator: empty; give what parts the categories of one item")
        parts = [{part.strip() for part in value.split(separator)} - {""} for value in values]
        names = tuple(sorted(set().union(*parts)))
        if len(names) > MOST_CATEGORIES:
            raise DataError(
                f"category_field: {len(names):,} categories in {len(values):,} items, e.g. {names[0]!r}, and"
                f" {MOST_CATEGORIES:,} is the most; give a field that groups items, or its separator"
            )
        columns = {name: column for column, name in enumerate(names)}
        weights = np.zeros((len(values), len(names)), dtype=np.float32)
        for row, found in enumerate(parts):
            if found:
                weights[row, [columns[name] for name in found]] = 1 / len(found)
        return cls(names, weights)

    @classmethod
    def of_items(
        cls, item_fields: Mapping[str, Sequence[str]], field: str, *, separator: str = "|"
    ) -> Categories:
        """Reads one of the items' fields; see `from_field`.

        Raises:
            DataError: there is no such field, and what `from_field` raises.
        """
        if field not in item_fields:
            hint = did_you_mean(field, item_fields) or f"the items have: {', '.join(item_fields) or 'none'}"
            raise DataError(f"ranking.category_field: there is no field {field!r}; {hint}")
        return cls.from_field(item_fields[field], separator=separator)

    def find(self, names: Iterable[str], *, where: str) -> NDArray[np.int64]:
        """Gives the columns of categories.

        Raises:
            DataError: a category is unknown.
        """
        if isinstance(names, str):
            raise DataError(f"{where}: {names!r} is one string; give a list of categories")
        wanted = list(names)
        for name in wanted:
            if name not in self.names:
                hint = (
                    did_you_mean(name, self.names)
                    or f"there are: {', '.join(map(repr, self.names[:20])) or 'none'}"
                )
                raise DataError(f"{where}: no item has the category {name!r}; {hint}")
        return np.array([self.names.index(name) for name in wanted], dtype=np.int64)

    def mix(self, histories: Lists) -> NDArray[np.float32]:
        """Gives each history's mix (U, C): the mean weights of its items that have a category.

        A row sums to 1, or to 0 where no item of the history has a category.
        """
        owners = np.repeat(np.arange(len(histories)), histories.counts)
        totals = np.zeros((len(histories), len(self.names)), dtype=np.float32)
        np.add.at(totals, owners, self.weights[histories.values])
        return totals / np.maximum(totals.sum(axis=1, keepdims=True), np.float32(1e-12))
