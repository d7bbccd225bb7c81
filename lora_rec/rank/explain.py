"""Why an item is in a list: its score as a sum over the items of the history and a few named parts.

The linear part of the head is a sum over the history as it is, divided by its spread over the catalogue for
this very history. The sequence part is not: what an item of the history adds depends on the others. Its share
is the Shapley value of taking items out of the history (see `shapley`), which is something that the model
understands: it was trained on histories of every length and knows of places only how far back they are. The
values add up to the whole difference to an empty history. One set of user vectors explains all items
of a list: for histories of 10, 20 and 50 items that took 42, 113 and 288 ms on a busy core. Against 600
orders a value was off by .06, .12 and .13 (root mean square), where the sequence part's best adds 1.6, 1.3
and 1.1, so that of the longest histories its order is rough. With the linear part, most of a score, the
best item was the same for 100, 100 and 97 % of the items, and its share off by .3, .5 and 1.3 points (six
users of MovieLens latest-small, ten items each).

A score is defined up to a constant per user, so a share depends on where zero lies; the order of the items of
a history does not. Which words of a text carried an item, only the towers can say: `LoadedTowers.explain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.rank.head import RankingHead, spread_of
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.sequence import SequencePart
from lora_rec.rank.shapley import shapley_values

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]
SAID_AS = {
    "everybody": "liked by all",
    "user_text": "the user's text",
    "recent": "taken lately",
    "new_items": "being new",
}


@dataclass(frozen=True)
class HistoryItem:
    """What one item of the history adds to a score."""

    item_id: str
    title: str
    contribution: float
    """Of the score; below 0 where it speaks against. The sum of the next two."""
    linear: float
    sequence: float
    share: float
    """The contribution over all that speaks for the item, so that these shares add up to 1."""


@dataclass(frozen=True)
class TextNeighbour:
    """A known item by which a new one was scored."""

    item_id: str
    title: str
    weight: float
    """Of all neighbours' 1."""


@dataclass(frozen=True)
class Explanation:
    """Parts that add up to the score of an item, up to rounding."""

    parts: dict[str, float]
    """`linear` and `sequence` through the history; `user_text` through the user's text vector; `everybody`,
    what the sequence part says of the item without any history; `recent`, taken lately by anybody;
    `new_items`, for an item that nobody took, what pulls it towards or away from the mean of the known."""
    shares: dict[str, float]
    """As `HistoryItem.share`, of the parts that do not go through the history."""
    history: tuple[HistoryItem, ...]
    """Best first; a repeated item once, and none that adds nothing. They sum up to `linear + sequence`."""
    neighbours: tuple[TextNeighbour, ...] = ()
    """Of an item that nobody took, nearest first: its parts are those of these items, by weight."""

    def in_one_line(self, *, n_items: int = 3, least_share: float = 0.05) -> str:
        """Gives what spoke most for the item, with its share of all that did.

        Args:
            n_items: of the history, at most.
            least_share: less is not worth the room; the best one is always named.

        >>> items = [HistoryItem("1", "Alien", 3, 2, 1, 0.75), HistoryItem("2", "Heat", 0.1, 0, 0.1, 0.02)]
        >>> Explanation({"linear": 2.0, "sequence": 1.1}, {"recent": 0.23}, tuple(items)).in_one_line()
        'because of: Alien 75%; taken lately 23%'
        """
        best = [row for row in self.history[:n_items] if row.share >= least_share] or self.history[:1]
        named = [f"{row.title or row.item_id} {row.share:.0%}" for row in best if row.share > 0]
        named += [
            f"{SAID_AS[name]} {share:.0%}" for name, share in self.shares.items() if share >= least_share
        ]
        why = "because of: " + ("; ".join(named) or "nothing that is known")
        if self.neighbours:
            nearest = [near.title or near.item_id for near in self.neighbours[:2]]
            why += f" (new; scored like {'; '.join(nearest)})"
        return why


def explain_items(
    head: RankingHead,
    history: Lists,
    items: _Ints,
    *,
    item_ids: Sequence[str],
    titles: Sequence[str],
    user_embedding: NDArray[np.float32] | None = None,
) -> list[Explanation]:
    """Explains the scores that `head.scores` gives some items for one user.

    Args:
        head: of a bundle.
        history: one list, oldest first.
        items: (T,), indices.
        item_ids: N, by index.
        titles: N, by index.
        user_embedding: (1, D), if the head was given one.
    """
    if not len(items):
        return []
    if not len(history.values):
        head = head.for_newcomers
    columns, mixed = _targets(head, items)
    parts: dict[str, _Floats] = {"linear": np.zeros(len(items)), "sequence": np.zeros(len(items))}
    spread = float(spread_of(head.linear.scores(history))[0, 0])
    linear = _linear(head.linear, history, columns) @ mixed / spread
    sequence = np.zeros_like(linear)
    if head.sequence is not None and head.sequence_weight:
        before, with_text, vectors = _shapley(head.sequence, history, user_embedding)
        of_items = head.sequence.items[columns].T.astype(np.float64) @ mixed * head.sequence_weight
        sequence[len(linear) - len(vectors) :] = vectors @ of_items
        bias = head.sequence.item_bias[columns] @ mixed * head.sequence_weight
        parts["everybody"] = before @ of_items + bias
        if user_embedding is not None:
            parts["user_text"] = (with_text - before) @ of_items
    if head.recent is not None and head.recent_weight:
        parts["recent"] = head.recent_weight * np.log1p(head.recent[columns]) @ mixed
    if not len(history.values) and (popularity := head.newcomer_popularity) is not None:
        parts["everybody"] = popularity[columns] @ mixed
    new = np.isin(items, head.new_items.items)
    if new.any():
        known = np.delete(head.scores(history, user_embedding)[0], head.new_items.items)
        parts["new_items"] = (1 - head.new_items.factor) * float(known.mean()) * new.astype(np.float64)
    parts["linear"], parts["sequence"] = linear.sum(axis=0), sequence.sum(axis=0)
    return [
        _describe(
            history.values,
            linear[:, row],
            sequence[:, row],
            parts={name: float(values[row]) for name, values in parts.items()},
            neighbours=_neighbours(head, item, item_ids, titles),
            item_ids=item_ids,
            titles=titles,
        )
        for row, item in enumerate(items)
    ]


def _targets(head: RankingHead, items: _Ints) -> tuple[_Ints, _Floats]:
    """Gives known items (C,), sorted, and weights (C, T) by which their scores make up those of `items`.

    A known item is its own; a new one is the stretched mean of its neighbours, and a constant.
    """
    new = head.new_items
    row_of = {int(item): row for row, item in enumerate(new.items)}
    near = [
        (new.neighbours[row_of[item]], new.factor * new.weights[row_of[item]])
        if item in row_of
        else (np.array([item]), np.ones(1))
        for item in items.tolist()
    ]
    columns = np.unique(np.concatenate([c for c, _ in near])).astype(np.int64)
    mixed = np.zeros((len(columns), len(items)))
    for target, (places, weights) in enumerate(near):
        np.add.at(mixed[:, target], np.searchsorted(columns, places), weights)
    return columns, mixed


def _linear(model: ItemItemModel, history: Lists, columns: _Ints) -> _Floats:
    """Gives (L, C), what each item of the history adds to some items' scores."""
    result = np.zeros((len(history.values), len(columns)))
    neighbours = model.neighbours[history.values]
    places = np.minimum(np.searchsorted(columns, neighbours), len(columns) - 1)
    rows, slots = np.nonzero(columns[places] == neighbours)
    values = model.weights[history.values] * model.history_weights(history)[:, None]
    np.add.at(result, (rows, places[rows, slots]), values[rows, slots])
    return result


def _shapley(
    part: SequencePart, history: Lists, user_embedding: NDArray[np.float32] | None
) -> tuple[_Floats, _Floats, _Floats]:
    """Takes a user vector apart.

    Returns:
        The vector (W,) of no history and no text, that of the text alone, and what each item of the history
        that is seen adds (S, W).
    """
    seen = history.values[-part.history_length :]

    def vectors_of(sets: NDArray[np.bool_]) -> NDArray[np.float32]:
        texts = None if user_embedding is None else np.repeat(user_embedding, len(sets), axis=0)
        return part.user_vectors(Lists.from_arrays([seen[row] for row in sets]), texts)

    result = shapley_values(vectors_of, n_parts=len(seen))
    nothing = part.user_vectors(Lists.from_arrays([[]]))[0].astype(np.float64)
    return nothing, result.nothing, result.values


def _neighbours(
    head: RankingHead, item: int, item_ids: Sequence[str], titles: Sequence[str]
) -> tuple[TextNeighbour, ...]:
    rows = np.flatnonzero(head.new_items.items == item)
    if not len(rows):
        return ()
    near, weights = head.new_items.neighbours[rows[0]], head.new_items.weights[rows[0]]
    order = np.argsort(-weights, kind="stable")
    return tuple(TextNeighbour(item_ids[near[n]], titles[near[n]], float(weights[n])) for n in order)


def _describe(
    history: _Ints,
    linear: _Floats,
    sequence: _Floats,
    *,
    parts: dict[str, float],
    neighbours: tuple[TextNeighbour, ...],
    item_ids: Sequence[str],
    titles: Sequence[str],
) -> Explanation:
    """Puts an explanation together; repeats of an item are added up."""
    distinct, owner = np.unique(history, return_inverse=True)
    by_part = [np.bincount(owner, weights=values, minlength=len(distinct)) for values in (linear, sequence)]
    total = by_part[0] + by_part[1]
    others = {name: value for name, value in parts.items() if name not in ("linear", "sequence")}
    for_it = total[total > 0].sum() + sum(value for value in others.values() if value > 0)
    scale = 1 / for_it if for_it > 0 else 0.0
    rows = [row for row in np.argsort(-total, kind="stable") if total[row]]
    return Explanation(
        parts=parts,
        shares={name: value * scale for name, value in others.items()},
        history=tuple(
            HistoryItem(
                item_id=item_ids[distinct[row]],
                title=titles[distinct[row]],
                contribution=float(total[row]),
                linear=float(by_part[0][row]),
                sequence=float(by_part[1][row]),
                share=float(total[row] * scale),
            )
            for row in rows
        ),
        neighbours=neighbours,
    )
