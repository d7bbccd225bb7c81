"""The ranking head as inner products, for an index or a database that searches vectors.

A score is linear / spread + user . item + popularity, see `rank.head`. All but the first is one inner product
of a user's with an item's vector, so any index of inner products finds its best. The first is zero but for
the neighbours of the history's items, a few thousand at most whatever the catalogue: they are scored here and
put among what was found. New items are weighted means of known ones, and so are their vectors; what a user's
mean of the first part adds to all of them is one more number of the vectors. A user without a history is
scored in full, by what is no product. The lists are those of `RankingHead.top_k` where the search is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.rank.head import RankingHead

_Array = NDArray[np.float32]
_Indices = NDArray[np.int64]
Search = Callable[[_Array, int], tuple[_Indices, _Array]]
"""From user vectors (U, V) and n to items (U, n) and scores (U, n), best first; -1 where there are fewer."""
ITEMS_AT_ONCE = 1 << 16
FIRST_SEARCH = 4
"""Items asked for at first, in lists: some of them are of the history, or neighbours of it."""


@dataclass(frozen=True, eq=False)
class HeadVectors:
    """The head of a bundle, taken apart.

    V is the width of the sequence part and two more: what is added for everybody, and what is added for items
    that nobody took.
    """

    head: RankingHead

    @property
    def width(self) -> int:
        """V."""
        return (0 if self.head.sequence is None else self.head.sequence.items.shape[1]) + 2

    def items(self, rows: _Indices) -> _Array:
        """Gives the vectors (R, V) of some items."""
        result, new = self._known_items(rows), self.head.new_items
        at = np.flatnonzero(self._new_places[rows] >= 0)
        places = self._new_places[rows[at]]
        near = self._known_items(new.neighbours[places].ravel().astype(np.int64))
        near = near.reshape(len(at), new.neighbours.shape[1], self.width)
        stretched = np.float32(new.factor) * np.einsum("rk,rkv->rv", new.weights[places], near)
        result[at] = stretched + np.float32(1 - new.factor) * self._known_mean
        result[at, -1] = 1 - new.factor
        return result

    def users(self, histories: Lists, user_embeddings: _Array | None = None) -> Users:
        """Gives the vectors of users and what is added to some items, see `Users`.

        Args:
            histories: U lists, oldest first, none empty: `top_k` ranks for these without vectors.
            user_embeddings: (U, D), see `SequencePart.user_vectors`.
        """
        vectors = np.ones((len(histories), self.width), dtype=np.float32)
        if self.head.sequence is not None:
            vectors[:, :-2] = self.head.sequence.user_vectors(histories, user_embeddings)
        linear, added = self.head.linear, []
        counts = linear.history_weights(histories)
        for user in range(len(histories)):
            mine = slice(histories.offsets[user], histories.offsets[user + 1])
            kept = np.flatnonzero(counts[mine])
            chosen, weights = histories.values[mine][kept], counts[mine][kept]
            items, place = np.unique(linear.neighbours[chosen], return_inverse=True)
            each = (linear.weights[chosen] * weights[:, None]).astype(np.float64)
            values = np.zeros(len(items))
            np.add.at(values, place.ravel(), each.ravel())
            n_items = self.head.n_items
            variance = (values**2).sum() / n_items - (values.sum() / n_items) ** 2
            values = values / np.sqrt(variance) if variance > 0 else values
            known = self._new_places[items] < 0
            vectors[user, -1] = values[known].sum() / self._n_known
            added.append(self._with_new_items(items[known].astype(np.int64), values[known]))
        return Users(vectors, tuple(items for items, _ in added), tuple(values for _, values in added))

    def top_k(
        self,
        histories: Lists,
        *,
        k: int,
        search: Search,
        user_embeddings: _Array | None = None,
        allow: Callable[[_Indices], NDArray[np.bool_]] | None = None,
        most: int | None = None,
    ) -> tuple[_Indices, _Array]:
        """Gives the best items (U, K) outside each history and their scores, as `RankingHead.top_k` does.

        Args:
            histories: U lists, oldest first.
            k: list length; at most N are given.
            search: of the items' vectors; called again for more where too few are left.
            user_embeddings: see `users`.
            allow: says which of some items may be given, where `search` looks at some alone.
            most: items that one search gives, N when left out.
        """
        n_items = self.head.n_items
        k, most = min(k, n_items), min(most or n_items, n_items)
        users = self.users(histories, user_embeddings)
        items = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for user in np.flatnonzero(histories.counts == 0):
            own = None if user_embeddings is None else user_embeddings[user : user + 1]
            items[user], scores[user] = self._of_newcomer(own, k=k, allow=allow)
        waiting, n = np.flatnonzero(histories.counts), min(FIRST_SEARCH * k, most)
        while len(waiting):
            found, relevance = search(users.vectors[waiting], n)
            short = []
            for row, user in enumerate(waiting.tolist()):
                own = users.items[user]
                usable = (found[row] >= 0) & ~np.isin(found[row], own) & ~np.isin(found[row], histories[user])
                if usable.sum() < k and n < most and (found[row] >= 0).all():
                    short.append(user)
                    continue
                kept = ~np.isin(own, histories[user])
                if allow is not None and kept.any():
                    kept[kept] = allow(own[kept])
                near = own[kept]
                values = self.items(near) @ users.vectors[user] + users.additions[user][kept]
                both = np.concatenate([near, found[row, usable]])
                total = np.concatenate([values, relevance[row, usable]]).astype(np.float32)
                best = np.lexsort((both, -total))[:k]
                items[user, : len(best)], scores[user, : len(best)] = both[best], total[best]
            waiting, n = np.array(short, dtype=np.int64), min(4 * n, most)
        return items, scores

    def _of_newcomer(
        self, embedding: _Array | None, *, k: int, allow: Callable[[_Indices], NDArray[np.bool_]] | None
    ) -> tuple[_Indices, _Array]:
        """Gives the list of a user without a history, from all scores: what ranks there is no product.

        Args:
            embedding: (1, D)
            k: list length.
            allow: see `top_k`.
        """
        nobody, n = Lists.from_arrays([[]]), k
        items, scores = np.full(k, -1, dtype=np.int64), np.full(k, -np.inf, dtype=np.float32)
        while True:
            found, values = self.head.top_k(nobody, k=n, user_embeddings=embedding)
            kept = np.flatnonzero(found[0] >= 0 if allow is None else allow(found[0]))[:k]
            if len(kept) == k or n == self.head.n_items:
                items[: len(kept)], scores[: len(kept)] = found[0, kept], values[0, kept]
                return items, scores
            n = min(4 * n, self.head.n_items)

    def _known_items(self, rows: _Indices) -> _Array:
        """Gives the vectors (R, V) as if every item were known."""
        head = self.head
        result = np.zeros((len(rows), self.width), dtype=np.float32)
        if head.sequence is not None and head.sequence_weight:
            weight = np.float32(head.sequence_weight)
            result[:, :-2] = weight * head.sequence.items[rows]
            result[:, -2] = weight * head.sequence.item_bias[rows]
        if head.recent is not None and head.recent_weight:
            result[:, -2] += np.float32(head.recent_weight) * np.log1p(head.recent[rows])
        return result

    def _with_new_items(self, items: _Indices, values: NDArray[np.float64]) -> tuple[_Indices, _Array]:
        """Adds the new items that have some known ones for neighbours, with what that gives them."""
        new = self.head.new_items
        readers = self._readers.take(items)
        places, place = np.unique(readers.values // new.neighbours.shape[1], return_inverse=True)
        near = new.weights.ravel()[readers.values] * np.repeat(values, readers.counts)
        of_new = new.factor * np.bincount(place, near, minlength=len(places))
        both = np.concatenate([items, new.items[places].astype(np.int64)])
        return both, np.concatenate([values, of_new]).astype(np.float32)

    @cached_property
    def _n_known(self) -> int:
        return max(1, self.head.n_items - len(self.head.new_items.items))

    @cached_property
    def _new_places(self) -> NDArray[np.int32]:
        """(N,), the place of each item in the table of new items; -1 for a known one."""
        places = np.full(self.head.n_items, -1, dtype=np.int32)
        places[self.head.new_items.items] = np.arange(len(self.head.new_items.items))
        return places

    @cached_property
    def _readers(self) -> Lists:
        """For each item, its places in the flat table of the new items' neighbours."""
        flat = self.head.new_items.neighbours.ravel()
        order = np.argsort(flat, kind="stable")
        return Lists.from_groups(flat[order].astype(np.int64), order, n_groups=self.head.n_items)

    @cached_property
    def _known_mean(self) -> _Array:
        """(V,), the mean of the known items' vectors."""
        known, total = np.flatnonzero(self._new_places < 0), np.zeros(self.width)
        for start in range(0, len(known), ITEMS_AT_ONCE):
            total += self._known_items(known[start : start + ITEMS_AT_ONCE]).sum(axis=0, dtype=np.float64)
        return (total / self._n_known).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Users:
    """What scores the items for some users: `vectors @ items.T`, and additions to a few items of each."""

    vectors: _Array
    """(U, V)"""
    items: tuple[_Indices, ...]
    """For each user, the items that something is added to, each once."""
    additions: tuple[_Array, ...]
    """How much, one for each of them."""
