"""Variants of training texts, so that no text is learned by heart.

A text has a fixed number of variants, always the same ones, so that the frozen layers run once for each and
the prefix cache holds them as it holds the text itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.text.collate import BatchSource, TokenBatch


def drop_words(text: str, *, share: float, seed: int) -> str:
    """Leaves words out by chance; one stays at least. The same text and seed give the same words.

    Args:
        text: words parted by white space.
        share: chance of each word to be left out.
        seed: of the choice, together with the text.

    >>> drop_words("a quiet place in the country", share=0.5, seed=0)
    'a place in the country'
    """
    words = text.split()
    if not words:
        return text
    generator = generator_of(text, seed)
    kept = generator.random(len(words)) >= share
    if not kept.any():
        kept[generator.integers(len(words))] = True
    return " ".join(word for word, stays in zip(words, kept, strict=True) if stays)


def generator_of(text: str, seed: int) -> np.random.Generator:
    """Gives a generator that is the same for a text wherever it stands."""
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


@dataclass(frozen=True, eq=False)
class VariedSource:
    """Texts with their variants, one source for all."""

    source: BatchSource
    places: NDArray[np.int64]
    """(V + 1, n), where the source has each text, and then each of its variants."""

    @classmethod
    def plain(cls, source: BatchSource) -> VariedSource:
        """Gives texts that have no variants."""
        return cls(source, np.arange(len(source.lengths))[None])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text of the source."""
        return self.source.lengths

    def batch(self, indices: NDArray[np.int64]) -> TokenBatch:
        """Gives texts of the source; see `draw` for which."""
        return self.source.batch(indices)

    def draw(self, texts: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        """Gives, for each text (T,), the place of itself or one of its variants, all with one chance."""
        return self.places[generator.integers(len(self.places), size=len(texts)), texts]
