"""What the towers learn from, and the part of it that one step sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from lora_rec.data.examples import Examples
from lora_rec.data.labels import ItemLabels
from lora_rec.data.lists import Lists
from lora_rec.train.projections import Teacher

_Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ShownLists:
    """Lists that were shown, each with a click and an item without."""

    texts: _Ints
    """(L,), which user text is that of the history before each list."""
    candidates: Lists
    """L lists of items."""
    clicks: NDArray[np.bool_]
    """Flat, one per entry of `candidates.values`."""


@dataclass(frozen=True, eq=False)
class Material:
    """All that there is to learn from."""

    examples: Examples
    """M points of histories with the next items."""
    user_texts: _Ints
    """(M,), which user text is that of each example."""
    known: Lists
    """(n_users), items that a user has taken: never that user's negatives."""
    item_counts: _Ints
    """(N,), training interactions of each item."""
    teacher: Teacher
    """Vectors that the embeddings are aligned with."""
    liked: NDArray[np.bool_] | None = None
    """Flat, one per entry of `examples.targets.values`: whether the user liked it; None without ratings."""
    item_labels: Sequence[ItemLabels] = ()
    """Fields of the items."""
    shown: ShownLists | None = None

    @property
    def n_items(self) -> int:
        """How many items the catalogue has."""
        return len(self.item_counts)

    @cached_property
    def taken_items(self) -> _Ints:
        """Items that anybody took in training, sorted.

        The others are nobody's negatives: that an item is new says nothing of who would take it, and towers
        that are told so rank every new item down.
        """
        return np.flatnonzero(self.item_counts)

    @cached_property
    def target_shares(self) -> NDArray[np.float64]:
        """(N,), of all targets."""
        values = self.examples.targets.values
        return np.bincount(values, minlength=self.n_items) / max(len(values), 1)


@dataclass(frozen=True, eq=False)
class ListBatch:
    """Some shown lists, padded; users and items are places in those of the batch."""

    users: torch.Tensor
    """(L,)"""
    items: torch.Tensor
    """(L, K)"""
    present: torch.Tensor
    """(L, K) bool."""
    clicks: torch.Tensor
    """(L, K) bool."""


@dataclass(frozen=True, eq=False)
class Batch:
    """B examples of one step over its T distinct user texts and M distinct items."""

    rows: _Ints
    """(B,), which examples."""
    texts: _Ints
    """(T,)"""
    items: _Ints
    """(M,)"""
    text_of_row: torch.Tensor
    """(B,), places in `texts`."""
    positive_users: torch.Tensor
    """(P,), rows of the pairs that were taken."""
    positive_items: torch.Tensor
    """(P,), their places in `items`."""
    positive_places: _Ints
    """(P,), their places in `examples.targets.values`."""
    known_mask: torch.Tensor
    """(B, M) bool, true where the user has taken the item at any time in training."""
    drawn: torch.Tensor
    """(M,) bool, the items that were drawn from those that anybody took, each with the same chance."""
    mined: torch.Tensor
    """(B, M) bool, true where the item is a mined negative of the user."""
    lists: ListBatch | None = None

    def to(self, device: torch.device) -> Batch:
        """Gives the batch on a device."""
        lists = self.lists
        if lists is not None:
            parts = (lists.users, lists.items, lists.present, lists.clicks)
            lists = ListBatch(*(part.to(device) for part in parts))
        return Batch(
            self.rows,
            self.texts,
            self.items,
            self.text_of_row.to(device),
            self.positive_users.to(device),
            self.positive_items.to(device),
            self.positive_places,
            self.known_mask.to(device),
            self.drawn.to(device),
            self.mined.to(device),
            lists,
        )


def draw_batch(
    material: Material,
    rows: _Ints,
    step: int,
    *,
    extra_items: int,
    mined: NDArray[np.int32] | None,
    mined_negatives: int,
    lists_per_step: int,
    list_length: int,
    seed: int,
) -> Batch:
    """Gathers what a step sees; the same numbers give the same batch.

    Args:
        material: all there is.
        rows: (B,), which examples.
        step: number of the step, from 1.
        extra_items: random items of those that anybody took.
        mined: (M, C), unknown items that the model ranks high for each example, -1 where there are fewer;
            None without mining.
        mined_negatives: how many of these are drawn for each row.
        lists_per_step: shown lists; 0 draws none.
        list_length: items of each.
        seed: of all that is drawn.
    """
    examples = material.examples
    generator = np.random.default_rng([seed, step, 1])
    size = min(extra_items, len(material.taken_items))
    extra = generator.choice(material.taken_items, size=size, replace=False)
    targets = examples.targets.take(rows)
    begins = examples.targets.offsets[rows]
    places = np.concatenate([np.arange(b, b + n) for b, n in zip(begins, targets.counts, strict=True)])
    users = np.repeat(np.arange(len(rows)), targets.counts)
    mined_items = np.empty((len(rows), 0), np.int64)
    if mined is not None:
        mined_items = _draw_mined(mined[rows], mined_negatives, np.random.default_rng([seed, step, 2]))
    lists = _draw_lists(material.shown, lists_per_step, list_length, np.random.default_rng([seed, step, 3]))
    found = [targets.values, extra, mined_items[mined_items >= 0], lists.items[lists.present]]
    items = np.unique(np.concatenate(found))
    texts = np.unique(np.concatenate([material.user_texts[rows], lists.texts]))
    positive_items = np.searchsorted(items, targets.values)
    known = np.stack([np.isin(items, material.known[int(u)], kind="sort") for u in examples.users[rows]])
    known[users, positive_items] = True
    is_mined = np.zeros_like(known)
    row, column = np.nonzero(mined_items >= 0)
    is_mined[row, np.searchsorted(items, mined_items[row, column])] = True
    tensor = torch.from_numpy
    return Batch(
        rows=rows,
        texts=texts,
        items=items,
        text_of_row=tensor(np.searchsorted(texts, material.user_texts[rows])),
        positive_users=tensor(users),
        positive_items=tensor(positive_items),
        positive_places=places,
        known_mask=tensor(known),
        drawn=tensor(np.isin(items, extra)),
        mined=tensor(is_mined),
        lists=lists.over(texts, items),
    )


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Padded shown lists."""

    texts: _Ints
    items: _Ints
    present: NDArray[np.bool_]
    clicks: NDArray[np.bool_]

    def over(self, texts: _Ints, items: _Ints) -> ListBatch | None:
        """Gives places in a batch's texts and items; None where there is no list."""
        if not len(self.texts):
            return None
        places = np.where(self.present, np.searchsorted(items, self.items), 0)
        users = np.searchsorted(texts, self.texts)
        return ListBatch(*map(torch.from_numpy, (users, places, self.present, self.clicks)))


def _draw_lists(
    shown: ShownLists | None, n_lists: int, length: int, generator: np.random.Generator
) -> _Drawn:
    size = 0 if shown is None else min(n_lists, len(shown.texts))
    items = np.zeros((size, length), dtype=np.int64)
    present, clicks = (np.zeros((size, length), dtype=bool) for _ in range(2))
    if shown is None or not size:
        return _Drawn(np.empty(0, np.int64), items, present, clicks)
    chosen = np.sort(generator.choice(len(shown.texts), size=size, replace=False))
    for row, number in enumerate(chosen):
        part = slice(shown.candidates.offsets[number], shown.candidates.offsets[number + 1])
        order = generator.permutation(part.stop - part.start)
        clicked = shown.clicks[part][order]
        taken, rest = order[clicked][: length - 1], order[~clicked]
        kept = np.concatenate([taken, rest[: length - len(taken)]])
        items[row, : len(kept)] = shown.candidates.values[part][kept]
        present[row, : len(kept)] = True
        clicks[row, : len(taken)] = True
    return _Drawn(shown.texts[chosen], items, present, clicks)


def _draw_mined(pools: NDArray[np.int32], n: int, generator: np.random.Generator) -> _Ints:
    """Gives (B, n) of (B, C), without repeats; -1 where a pool has too few."""
    order = generator.random(pools.shape)
    order[pools < 0] = 2.0  # last
    chosen = np.argsort(order, axis=1)[:, :n]
    return np.take_along_axis(pools, chosen, axis=1).astype(np.int64)
