"""How alike the tastes of users are: cosines of what they took, and of what its texts say."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.rank.linear import centre, sum_by_row

_Array = NDArray[np.float32]
USERS_AT_ONCE = 32  # their profiles lie side by side in memory


@dataclass(frozen=True, eq=False)
class Tastes:
    """Profiles of n users: one sparse, over the N items they took, and one of the items' texts."""

    histories: Lists
    """(n)"""
    weights: _Array
    """One per item of the histories; a user's profile, in which repeats add up, has length 1."""
    rarity: _Array
    """(N,), log of users over the users who took an item: what few have tells more."""
    item_vectors: _Array
    """(N, D), centred unit vectors of the items' texts; D is 0 where there are none."""
    text_mean: _Array
    """(D,), of the users' text vectors; taken off, because all users share it."""
    user_vectors: _Array
    """(n, D), unit length; zero for a user without items."""

    def cosines(self, histories: Lists) -> tuple[_Array, _Array]:
        """Compares any users with the n; see `describe_tastes` for their histories.

        Returns:
            By items (U, n), within [0, 1], and by texts (U, n), within [-1, 1]; 0 for a user without items.
        """
        weights = _weigh(histories, self.rarity)
        texts = _average_texts(histories, weights, self.item_vectors)
        return self._compare(histories, weights, _unit(texts, self.text_mean, histories))

    def own_cosines(self) -> tuple[_Array, _Array]:
        """Compares the n with one another, (n, n) twice."""
        return self._compare(self.histories, self.weights, self.user_vectors)

    def _compare(self, histories: Lists, weights: _Array, texts: _Array) -> tuple[_Array, _Array]:
        by_items = np.empty((len(histories), len(self.histories)), np.float32)
        owners = np.repeat(np.arange(len(self.histories)), self.histories.counts)
        for start in range(0, len(histories), USERS_AT_ONCE):
            stop = min(start + USERS_AT_ONCE, len(histories))
            rows = slice(histories.offsets[start], histories.offsets[stop])
            profiles = np.zeros((len(self.rarity), stop - start), np.float32)
            columns = np.repeat(np.arange(stop - start), histories.counts[start:stop])
            np.add.at(profiles, (histories.values[rows], columns), weights[rows])
            products = profiles[self.histories.values] * self.weights[:, None]
            by_items[start:stop] = sum_by_row(products, owners, n_rows=len(self.histories)).T
        return by_items, texts @ self.user_vectors.T

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Gives every array by name."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "histories"}
        return arrays | {"history_values": self.histories.values, "history_offsets": self.histories.offsets}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> Tastes:
        """Reads what `to_arrays` gave."""
        histories = Lists(np.asarray(arrays["history_values"]), np.asarray(arrays["history_offsets"]))
        names = [f.name for f in fields(cls) if f.name != "histories"]
        return cls(histories, **{name: np.asarray(arrays[name], np.float32) for name in names})


def describe_tastes(histories: Lists, *, n_items: int, item_vectors: _Array | None = None) -> Tastes:
    """Describes users by what they took.

    Args:
        histories: items of each user, in any order; strengths count by their logarithm.
        n_items: N.
        item_vectors: (N, D), of the items' texts.
    """
    owners = np.repeat(np.arange(len(histories)), histories.counts)
    n_takers = np.bincount(
        np.unique(owners * np.int64(n_items) + histories.values) % n_items, minlength=n_items
    )
    rarity = np.log(max(len(histories), 1) / np.maximum(n_takers, 1)).astype(np.float32)
    texts = np.empty((n_items, 0), np.float32) if item_vectors is None else centre(item_vectors)
    weights = _weigh(histories, rarity)
    summed = _average_texts(histories, weights, texts)
    had = histories.counts > 0
    mean = summed[had].mean(axis=0) if had.any() else np.zeros(texts.shape[1], np.float32)
    return Tastes(histories, weights, rarity, texts, mean, _unit(summed, mean, histories))


def _weigh(histories: Lists, rarity: _Array) -> _Array:
    weights = rarity[histories.values] * histories.relative_strengths()
    owners = np.repeat(np.arange(len(histories)), histories.counts)
    # Repeats of an item add up in a profile, so its length is that of the sums.
    pairs, place = np.unique(owners * np.int64(len(rarity)) + histories.values, return_inverse=True)
    totals = np.bincount(place, weights=weights, minlength=len(pairs))
    lengths = np.sqrt(np.bincount(pairs // len(rarity), weights=totals**2, minlength=len(histories)))
    return (weights / np.maximum(lengths, 1e-12)[owners]).astype(np.float32)


def _average_texts(histories: Lists, weights: _Array, item_vectors: _Array) -> _Array:
    """Gives unit vectors (U, D)."""
    result = np.zeros((len(histories), item_vectors.shape[1]), np.float32)
    for start in range(0, len(histories), USERS_AT_ONCE):
        stop = min(start + USERS_AT_ONCE, len(histories))
        rows = slice(histories.offsets[start], histories.offsets[stop])
        owners = np.repeat(np.arange(stop - start), histories.counts[start:stop])
        weighted = item_vectors[histories.values[rows]] * weights[rows, None]
        result[start:stop] = sum_by_row(weighted, owners, n_rows=stop - start)
    return result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)


def _unit(vectors: _Array, mean: _Array, histories: Lists) -> _Array:
    """Takes the mean off and gives unit vectors, zero for users without items."""
    moved = (vectors - mean) * (histories.counts > 0)[:, None]
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
