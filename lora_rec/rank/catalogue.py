"""A bundle's items, found by id and by category; errors name what is near. And the way to the Hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import BundleError, DataError, nearest_names
from lora_rec.rank.categories import Categories
from lora_rec.schema import ITEM_TEXTS, TOWERS, Manifest

if TYPE_CHECKING:
    from typing_extensions import Self

    from lora_rec.hub import Pushed

HINTED = 20_000
"""Ids that unknown ones are compared with for one error; a thousand take about 10 ms."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The items of a bundle."""

    manifest: Manifest
    item_ids: tuple[str, ...]
    """(N,)"""
    item_fields: dict[str, list[str]]
    """Name to N texts."""
    folder: Path | None = field(default=None, kw_only=True)
    """Where the bundle was read from."""

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        token: str | None = None,
        towers: Sequence[str] = TOWERS,
        item_texts: bool = True,
        item_vectors: bool = True,
        include: Sequence[str] = (),
        licence: str | None = None,
    ) -> Pushed:
        """Pushes the bundle's folder as one commit, with a card; see `hub.push_bundle`.

        Raises:
            BundleError: it was not read from a folder, or something in that may not leave.
            HubError: the Hub refuses or cannot be reached; the commit is whole or was not made.
        """
        from lora_rec.hub import push_bundle

        if self.folder is None:
            raise BundleError("push: these items were not read from a folder; load a bundle and push that")
        return push_bundle(
            self.folder,
            name,
            private=private,
            revision=revision,
            commit_message=commit_message,
            token=token,
            towers=towers,
            item_texts=item_texts,
            item_vectors=item_vectors,
            include=include,
            licence=licence,
        )

    def with_item_fields(self, fields: Mapping[str, Mapping[str, str]]) -> Self:
        """Gives the same with item texts, for a bundle that was pushed without them.

        Args:
            fields: field, e.g. `title`, to item id to text; ids that the bundle does not have are left out.

        Raises:
            DataError: an item of the bundle has no text in one of the fields.
        """
        texts = {}
        for name, of_items in fields.items():
            missing = [item for item in self.item_ids if item not in of_items]
            if missing:
                raise DataError(f"{name}: {len(missing):,} items have no text, e.g. {missing[0]!r}; give all")
            texts[name] = [of_items[item] for item in self.item_ids]
        return replace(self, item_fields=self.item_fields | texts)

    @cached_property
    def titles(self) -> Sequence[str]:
        """The field `title`, or the first field, of each item; its id where it has none."""
        texts = self.item_fields.get("title") or next(iter(self.item_fields.values()), self.item_ids)
        return [text or item for text, item in zip(texts, self.item_ids, strict=True)]

    @cached_property
    def categories(self) -> Categories | None:
        """Of the items; None where the bundle names no field for them.

        Raises:
            DataError: the items lack the field, or it has too many values for categories.
        """
        ranking = self.manifest.ranking
        if ranking.category_field is None:
            return None
        if ITEM_TEXTS in self.manifest.left_out and ranking.category_field not in self.item_fields:
            raise DataError(
                f"categories: the bundle was pushed without item texts; give {ranking.category_field!r} with"
                " Recommender.with_item_fields"
            )
        return Categories.of_items(
            self.item_fields, ranking.category_field, separator=ranking.category_separator
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides lists: the manifest, which has the digest of every file, and the texts."""
        parts = [self.manifest.to_json(), self.item_fields]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def positions(self) -> dict[str, int]:
        """Id to index."""
        return {item_id: i for i, item_id in enumerate(self.item_ids)}

    def find_items(self, item_ids: Sequence[str], *, where: str = "history") -> NDArray[np.int64]:
        """Gives the indices of item ids.

        Raises:
            DataError: some are unknown; three are named, in a catalogue of up to HINTED items with the
                nearest known ones.
        """
        if isinstance(item_ids, str):
            raise DataError(f"{where}: {item_ids!r} is one string; give a list of item ids")
        names = [str(item) for item in item_ids]  # once: an iterator is empty the second time
        unknown = [name for name in names if name not in self.positions]
        if unknown:
            hints = []
            n_hints = HINTED // len(self.item_ids)  # where lists are served, old ids are common
            for place, name in enumerate(unknown[:3]):
                near = nearest_names(name, self.item_ids) if place < n_hints else ()
                hints.append(f"{name!r}" + (f" (nearest: {', '.join(near)})" if near else ""))
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            raise DataError(
                f"{where}: unknown item id {', '.join(hints)}{more};"
                f" the catalogue has {len(self.item_ids):,} items, e.g. {', '.join(self.item_ids[:3])}"
            )
        return np.array([self.positions[name] for name in names], dtype=np.int64)

    def find_histories(
        self,
        histories: Mapping[str, Sequence[str]],
        strengths: Mapping[str, Sequence[float]] | None,
        *,
        skip_unknown: bool = False,
    ) -> Lists:
        """Gives the histories of users by id as lists of indices; see `find_items`.

        Args:
            histories: user id to item ids, oldest first.
            strengths: user id to one number per item of the history.
            skip_unknown: leave unknown ids out, with their strengths.

        Raises:
            DataError: an id is unknown, or strengths do not fit.
        """
        histories = {user: own if isinstance(own, str) else list(own) for user, own in histories.items()}
        missing = [u for u in histories if strengths is not None and u not in strengths]
        if missing:
            raise DataError(
                f"strengths: user {missing[0]!r} is missing; give one number per item of the history"
            )
        for user, given in (strengths or {}).items():
            if user in histories and len(given) != (needed := len(histories[user])):
                of = f" of {user}" if user else ""
                raise DataError(
                    f"strengths{of}: {len(given)} values where {needed} are needed; give one number per item"
                    " of the history"
                )
        found: list[NDArray[np.int64]] = []
        values: list[Sequence[float]] = []
        for user, history in histories.items():
            weights = () if strengths is None else strengths[user]
            if skip_unknown and not isinstance(history, str):
                known = [str(item) in self.positions for item in history]
                history, weights = list(compress(history, known)), list(compress(weights, known))
            found.append(self.find_items(history, where=f"history{f' of {user}' if user else ''}"))
            values.append(weights)
        return Lists.from_arrays(found, None if strengths is None else values)

    def categories_for(self, asker: str) -> Categories:
        """Gives the categories to what cannot do without.

        Raises:
            DataError: the bundle names no field for them.
        """
        if self.categories is None:
            raise DataError(
                f"{asker}: needs categories, and this bundle names no field for them; set"
                " ranking.category_field in the recipe"
            )
        return self.categories

    def allowed(self, items: Sequence[str], categories: Sequence[str]) -> NDArray[np.bool_] | None:
        """Gives which items (N,) are left when items and whole categories are excluded; None for all.

        Raises:
            DataError: an id or a category is unknown, or there are no categories.
        """
        if not len(items) and not len(categories):
            return None
        allowed = np.ones(len(self.item_ids), dtype=bool)
        if len(items):
            allowed[self.find_items(items, where="exclude")] = False
        if len(categories):
            where = "exclude_categories"
            known = self.categories_for(where)
            allowed &= ~(known.weights[:, known.find(categories, where=where)] > 0).any(axis=1)
        return allowed
