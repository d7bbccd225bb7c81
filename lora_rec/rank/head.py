"""The ranking head in numpy: from a history to scores over the catalogue.

It adds up three parts: the item-item model of `item_item`, the small transformer of `sequence`, and what is
taken lately, `recent`. The first grows with the length of a history, so it is divided by its spread; without
that, what is taken lately counted for short histories alone (Online Retail, validation: .120 instead of
.129). Items that nobody took score like their neighbours in text, see `new_items`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.new_items import NewItems, no_new_items
from lora_rec.rank.search import SCORES_AT_ONCE, Top, Wanted, tops_of
from lora_rec.rank.sequence import SequencePart

_Array = NDArray[np.float32]
SEQUENCE_ARRAYS = tuple(SequencePart.__dataclass_fields__)
CACHED_SCORES = 1 << 20
"""What stays near the processor while it is added up: 256 users of 100,000 items take .8 ms each by blocks of
so many scores, 2.0 by the largest."""
LEAST_USERS = 16
"""In a block all the same: they share the reading of the items' vectors."""


@dataclass(frozen=True, eq=False)
class RankingHead:
    """The parts and their weights, which are chosen on validation data."""

    linear: ItemItemModel
    sequence: SequencePart | None = None
    """None where the linear part ranks alone."""
    sequence_weight: float = 0.0
    """Factor of the sequence part's scores."""
    recent: _Array | None = None
    """(N,), fading counts at the end of the log, see `recent.RecentCounts`; None where there are no times."""
    recent_weight: float = 0.0
    """Factor of log(1 + recent)."""
    new_items: NewItems = field(default_factory=no_new_items)
    popularity: _Array | None = None
    """(N,), what ranks for a user without a history where neither the sequence part nor recent counts do. Not
    in `to_arrays`: a bundle keeps it for re-ranking, too."""

    @property
    def n_items(self) -> int:
        """N, items of the catalogue."""
        return len(self.linear.neighbours)

    @property
    def newcomer_popularity(self) -> _Array | None:
        """`popularity`, where nothing else ranks for a user without a history."""
        by_sequence = self.sequence is not None and self.sequence_weight != 0
        by_recent = self.recent is not None and self.recent_weight != 0
        return None if by_sequence or by_recent else self.popularity

    @property
    def for_newcomers(self) -> RankingHead:
        """The head as it scores for a user without a history: new items are not stretched.

        The factor was chosen where histories tell items apart, and scores spread in another way there.
        """
        return replace(self, new_items=replace(self.new_items, factor=1.0))

    def scores(
        self, histories: Lists, user_embeddings: _Array | None = None, *, recent: _Array | None = None
    ) -> _Array:
        """Gives (U, N).

        Args:
            histories: U lists, oldest first.
            user_embeddings: (U, D), see `SequencePart.user_vectors`.
            recent: (U, N), fading counts at each user's moment; those of the end of the log when left out.
        """
        linear = self.linear.scores(histories)
        result = linear / spread_of(linear)
        if self.sequence is not None and self.sequence_weight:
            result += np.float32(self.sequence_weight) * self.sequence.scores(histories, user_embeddings)
        counts = self.recent if recent is None else recent
        if counts is not None and self.recent_weight:
            result += np.float32(self.recent_weight) * np.log1p(counts)
        newcomers = histories.counts == 0
        if (popularity := self.newcomer_popularity) is not None:
            result[newcomers] = popularity
        self.new_items.fill(result, plain=newcomers)
        return result

    def top_k(
        self,
        histories: Lists,
        *,
        k: int,
        user_embeddings: _Array | None = None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], _Array]:
        """Gives the best allowed items (U, K) outside each history, and their scores (U, K)."""
        (best,) = self.tops(histories, [(k, allowed)], user_embeddings=user_embeddings)
        return best

    def tops(
        self, histories: Lists, wanted: Sequence[Wanted], *, user_embeddings: _Array | None = None
    ) -> list[Top]:
        """Gives several lists of each history by scores made once; see `search.tops_of`."""

        def score(rows: NDArray[np.int64]) -> _Array:
            embeddings = None if user_embeddings is None else user_embeddings[rows]
            return self.scores(histories.take(rows), embeddings)

        return tops_of(
            score,
            wanted,
            n_users=len(histories),
            n_items=self.n_items,
            exclude=histories,
            block=self._users_at_once(),
        )

    def _users_at_once(self) -> int:
        n_items = max(self.n_items, 1)
        scores = min(max(CACHED_SCORES, LEAST_USERS * n_items), SCORES_AT_ONCE)
        return min(256, max(1, scores // n_items))

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Gives every array by name, for a safetensors file; the linear part's weights in half precision."""
        new = self.new_items
        arrays: dict[str, NDArray[np.generic]] = {
            "neighbours": self.linear.neighbours,
            "weights": self.linear.weights.astype(np.float16),
            "new_items": new.items,
            "new_neighbours": new.neighbours,
            "new_weights": new.weights,
        }
        if self.sequence is not None:
            arrays |= {name: getattr(self.sequence, name) for name in SEQUENCE_ARRAYS}
        if self.recent is not None:
            arrays["recent"] = self.recent
        numbers = [self.linear.decay, self.sequence_weight, self.recent_weight, new.factor]
        return arrays | {"settings": np.array(numbers, dtype=np.float64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> RankingHead:
        """Reads what `to_arrays` gave."""

        def floats(name: str) -> _Array:
            return np.asarray(arrays[name], dtype=np.float32)

        def ints(name: str) -> NDArray[np.int32]:
            return np.asarray(arrays[name], dtype=np.int32)

        decay, sequence_weight, recent_weight, factor = (float(value) for value in arrays["settings"])
        sequence = None
        if SEQUENCE_ARRAYS[0] in arrays:
            sequence = SequencePart(**{name: floats(name) for name in SEQUENCE_ARRAYS})
        return cls(
            ItemItemModel(ints("neighbours"), floats("weights"), decay),
            sequence,
            sequence_weight,
            floats("recent") if "recent" in arrays else None,
            recent_weight,
            NewItems(ints("new_items"), ints("new_neighbours"), floats("new_weights"), factor),
        )


def spread_of(scores: _Array) -> _Array:
    """Gives the standard deviation of each row of scores (U, N) as (U, 1); 1 for a row of zeros."""
    spread = scores.std(axis=1, keepdims=True)
    return np.where(spread > 0, spread, np.float32(1))
