"""Makes the vectors that re-ranking looks at, and those that judge it.

A re-ranker that is judged by its own vectors gets what it asks for. So the users are parted at random:
factors of one half are a space of re-ranking, factors of the other half are the ruler, and neither knows what
the other saw. Texts are the second ruler, which `text` and `both` do look at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Split
from lora_rec.data.lists import Lists
from lora_rec.rank.linear import decompose
from lora_rec.rank.spaces import ItemSpaces, popularity_of

_Array = NDArray[np.float32]
FACTOR_WIDTH = 64
HALVES_SEED = 0


@dataclass(frozen=True, eq=False)
class Rulers:
    """Vectors that lists are judged by."""

    factors: _Array
    """(N, F), unit length, of the users that no space of re-ranking was made of."""
    text: _Array
    """(N, H)"""


def factor_vectors(histories: Lists, *, n_items: int, width: int = FACTOR_WIDTH, seed: int = 0) -> _Array:
    """Gives each item's part in the leading singular vectors of the user-item matrix, (N, F), unit length.

    Every vector counts by its singular value, so the cosine of two rows is that of two columns of the matrix,
    as far as its leading factors tell: how much the items have the same users. (Without the values weak
    factors count like strong ones, and nearly all items stand at right angles: MovieLens-100K's plain lists
    then have .88 of 1.) Zero for an item that nobody took.

    Args:
        histories: items of each user; strengths are not read.
        n_items: N.
        width: F, less where there are fewer users or items.
        seed: of the random start where the matrix is large.
    """
    taken = Lists(histories.values, histories.offsets)
    spectrum = decompose(taken, n_items=n_items, max_rank=width, seed=seed)
    vectors = spectrum.vectors[:, :width] * np.sqrt(spectrum.values[:width])
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    # What rounding leaves of zero is no direction.
    known = norms > 1e-6 * max(float(norms.max(initial=0.0)), 1e-12)
    return np.where(known, vectors / np.maximum(norms, 1e-12), 0).astype(np.float32)


def halve_users(histories: Lists, *, seed: int = HALVES_SEED) -> tuple[Lists, Lists]:
    """Parts the users at random."""
    order = np.random.default_rng(seed).permutation(len(histories))
    middle = (len(order) + 1) // 2
    return histories.take(np.sort(order[:middle])), histories.take(np.sort(order[middle:]))


def make_spaces(text: _Array, split: Split, *, seed: int = HALVES_SEED) -> tuple[ItemSpaces, Rulers]:
    """Gives the spaces of re-ranking and the rulers, of the training interactions.

    Args:
        text: (N, H), vectors of the items' texts.
        split: its validation and test parts are not looked at.
        seed: of the halves.
    """
    mine, others = halve_users(split.train_histories(), seed=seed)
    n_items = split.n_items
    spaces = ItemSpaces(text, factor_vectors(mine, n_items=n_items), popularity_of(split.item_counts()))
    return spaces, Rulers(_ruler_of(others, n_items=n_items), _fill_zeros(text))


def factor_ruler(split: Split, *, seed: int = HALVES_SEED) -> _Array:
    """Gives the factors of `make_spaces`'s rulers alone, for lists that are judged without the texts."""
    return _ruler_of(halve_users(split.train_histories(), seed=seed)[1], n_items=split.n_items)


def _ruler_of(histories: Lists, *, n_items: int) -> _Array:
    return _fill_zeros(factor_vectors(histories, n_items=n_items))


def _fill_zeros(vectors: _Array, *, seed: int = 0) -> _Array:
    """Gives items without a direction one by chance: nothing says that they are like any other."""
    unknown = ~vectors.any(axis=1)
    drawn = np.random.default_rng(seed).standard_normal((int(unknown.sum()), vectors.shape[1]))
    filled = vectors.copy()
    filled[unknown] = drawn / np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), 1e-12)
    return filled
