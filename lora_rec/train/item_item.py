"""Fits the linear part of the ranking head in closed form.

EASE (Steck 2019, arXiv 1905.03375): with P = (G + l)^-1 for the co-occurrences G of items, the weight from i
to j is -P_ij / P_jj. Two things are added to G. Co-occurrences count by how near two items stand in a
history, 1 / (1 + distance / nearness): what follows at once says more than what follows years later. This
function of the distance is convex and falls to zero, so G stays a matrix of inner products (Polya) but for
what is cut off its end, which the regularisation outweighs. And the items' text vectors T join as further
rows, w T T' (closed-form side information, Jeunen et al. 2020), so that an item which nobody took yet has
weights too.

Where there are too many items for a matrix of them, the leading factors of G stand for it, and all pairs
count alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import TrainingError
from lora_rec.rank.item_item import keep_strongest
from lora_rec.rank.linear import LinearModel, Spectrum, decompose

EXACT_ITEMS = 14_000
"""Up to this many items the matrix is inverted: 4 N^2 bytes, N^3 multiplications."""
EASE_WEIGHTS = 1000
"""That `fit_ease` keeps of each row; see `rank.item_item` for what fewer cost."""
LONGEST_DISTANCE = 20
"""Pairs further apart than this many times the nearness would count less than a twentieth; left out."""
WEIGHTS_AT_ONCE = 1 << 24
"""In a block of rows whose strongest are looked for; these are ordered in twice as many bytes again."""

_Table = tuple[NDArray[np.int32], NDArray[np.float32]]


@dataclass(frozen=True)
class ItemItemSettings:
    """The numbers of a fit."""

    nearness: float | None
    """Distance at which a pair of a history counts half; None counts all pairs alike."""
    regularisation: float
    text_weight: float
    """w of the module's docstring; 0 leaves texts out."""


class ItemItemFit(Protocol):
    """Fits models of different settings on the same histories."""

    def table(self, settings: ItemItemSettings, *, n_neighbours: int) -> _Table:
        """Gives neighbours (N, M) and weights (N, M)."""
        ...


def prepare_fit(
    histories: Lists, *, n_items: int, text_vectors: NDArray[np.float32] | None = None
) -> ItemItemFit:
    """Gives the exact fit where the catalogue is small enough, else the one by leading factors.

    Args:
        histories: items of each user, oldest first.
        n_items: N.
        text_vectors: (N, D), centred, unit length.
    """
    form = ExactFit if n_items <= EXACT_ITEMS else FactorFit
    return form(histories, n_items=n_items, text_vectors=text_vectors)


def fit_ease(histories: Lists, *, n_items: int, regularisation: float) -> _Table:
    """Gives the weights of plain EASE by its inverse, where every item of a history counts once.

    Returns:
        Neighbours (N, M) and weights (N, M), M = min(N, EASE_WEIGHTS).
    """
    settings = ItemItemSettings(nearness=None, regularisation=regularisation, text_weight=0.0)
    return ExactFit(histories.without_repeats(), n_items=n_items).table(settings, n_neighbours=EASE_WEIGHTS)


class ExactFit:
    """Inverts the matrix, in the place where it was counted: it is by far the largest thing here."""

    def __init__(
        self, histories: Lists, *, n_items: int, text_vectors: NDArray[np.float32] | None = None
    ) -> None:
        """See `prepare_fit`."""
        self._histories, self._n_items = histories, n_items
        self._text = None if text_vectors is None else torch.from_numpy(np.ascontiguousarray(text_vectors))

    def table(self, settings: ItemItemSettings, *, n_neighbours: int) -> _Table:
        """See `ItemItemFit`.

        Raises:
            TrainingError: the matrix cannot be inverted.
        """
        pairs = count_pairs(self._histories, n_items=self._n_items, nearness=settings.nearness)
        # Symmetric, so its transpose is the same matrix, in LAPACK's order: nothing is copied.
        matrix = torch.from_numpy(pairs).T
        if self._text is not None and settings.text_weight:
            matrix.addmm_(self._text, self._text.T, alpha=settings.text_weight)
        matrix.diagonal().add_(settings.regularisation)
        try:
            torch.linalg.cholesky(matrix, out=matrix)
        except torch.linalg.LinAlgError as error:
            raise TrainingError(
                f"head: co-occurrences with regularisation {settings.regularisation:g} cannot be inverted;"
                " leave out histories that play the same round of items over and over"
            ) from error
        torch.cholesky_inverse(matrix, out=matrix)
        scales = -1 / matrix.diagonal().clone()
        matrix.diagonal().zero_()
        return _strongest((matrix[rows] * scales for rows in _blocks(self._n_items)), n_neighbours)


class FactorFit:
    """Takes the leading factors, or all where users are few; keeps those of the last text weight."""

    def __init__(
        self, histories: Lists, *, n_items: int, text_vectors: NDArray[np.float32] | None = None
    ) -> None:
        """See `prepare_fit`."""
        self._histories, self._n_items, self._text = histories, n_items, text_vectors
        self._spectrum: tuple[float, Spectrum] | None = None

    def table(self, settings: ItemItemSettings, *, n_neighbours: int) -> _Table:
        """See `ItemItemFit`; nearness is not read."""
        if self._spectrum is None or self._spectrum[0] != settings.text_weight:
            spectrum = decompose(
                self._histories,
                n_items=self._n_items,
                text_vectors=self._text,
                text_weight=settings.text_weight**0.5,
            )
            self._spectrum = (settings.text_weight, spectrum)
        model = self._spectrum[1].model(regularisation=settings.regularisation, decay=1.0)
        return _strongest(_products(model, self._n_items), n_neighbours)


def _products(model: LinearModel, n_items: int) -> Iterator[torch.Tensor]:
    factors, scaled = torch.from_numpy(model.factors), torch.from_numpy(model.item_vectors())
    for rows in _blocks(n_items):
        block = factors[rows] @ scaled.T
        block[torch.arange(len(block)), torch.arange(rows.start, rows.start + len(block))] = 0
        yield block


def _blocks(n_items: int) -> Iterator[slice]:
    step = max(16, WEIGHTS_AT_ONCE // n_items)
    return (slice(start, min(start + step, n_items)) for start in range(0, n_items, step))


def _strongest(blocks: Iterator[torch.Tensor], n_neighbours: int) -> _Table:
    parts = [keep_strongest(block.numpy(), n_neighbours=n_neighbours) for block in blocks]
    return np.concatenate([columns for columns, _ in parts]), np.concatenate([values for _, values in parts])


def count_pairs(histories: Lists, *, n_items: int, nearness: float | None) -> NDArray[np.float32]:
    """Counts the pairs of items within histories, (N, N), each by how near the two stand.

    Where there are strengths, a pair counts by their product. An item that comes twice counts as two.

    >>> pairs = count_pairs(Lists.from_arrays([[0, 1, 2]]), n_items=3, nearness=1.0)
    >>> (6 * pairs).round().tolist()
    [[6.0, 3.0, 2.0], [3.0, 6.0, 3.0], [2.0, 3.0, 6.0]]
    """
    gram = np.zeros(n_items * n_items, dtype=np.float32)
    values = histories.values
    users = np.repeat(np.arange(len(histories)), histories.counts)
    strengths = histories.relative_strengths()
    np.add.at(gram, values * (n_items + 1), strengths**2)
    longest = int(histories.counts.max(initial=0)) - 1
    if nearness is not None:
        longest = min(longest, int(LONGEST_DISTANCE * nearness))
    for distance in range(1, longest + 1):
        first = np.flatnonzero(users[distance:] == users[:-distance])
        near = np.float32(1.0 if nearness is None else 1 / (1 + distance / nearness))
        one, other = values[first], values[first + distance]
        counted = near * strengths[first] * strengths[first + distance]
        np.add.at(gram, one * n_items + other, counted)
        np.add.at(gram, other * n_items + one, counted)  # a transposed copy would take the memory twice
    return gram.reshape(n_items, n_items)
