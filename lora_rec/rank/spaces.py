"""What re-ranking looks at beside relevance: how alike items are, in three spaces, and how often taken.

`text` holds the item texts as the user tower reads them: items are alike that are described alike. `factors`
holds who took what: items are alike that the same users took. `both` has the two side by side, each with half
of the weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_rec.errors import ArgumentError, BundleError
from lora_rec.rank.chances import Chances
from lora_rec.rank.rerank import rerank_lists
from lora_rec.rank.rules import Quotas
from lora_rec.schema import NOVEL, SPACES, VECTOR_STRATEGIES

_Array = NDArray[np.float32]
_Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ItemSpaces:
    """The vectors of all items; N items."""

    text: _Array
    """(N, H), of any length."""
    factors: _Array | None = None
    """(N, F), unit length; zero for an item that was not taken. None in bundles of older versions."""
    popularity: _Array | None = None
    """(N,), within 0..1, see `popularity_of`; None in bundles of older versions."""

    @classmethod
    def load(cls, folder: Path) -> ItemSpaces:
        """Reads what `save` wrote."""

        def read(name: str) -> _Array | None:
            file = folder / f"{name}.npy"
            return np.load(file, allow_pickle=False).astype(np.float32) if file.is_file() else None

        text = read("similarity_vectors")
        if text is None:
            raise BundleError(f"{folder}: no similarity_vectors.npy; get the bundle again")
        return cls(text, read("factor_vectors"), read("popularity"))

    def save(self, folder: Path) -> None:
        """Writes similarity_vectors.npy, factor_vectors.npy and popularity.npy, in half precision."""
        for name, values in (
            ("similarity_vectors", self.text),
            ("factor_vectors", self.factors),
            ("popularity", self.popularity),
        ):
            if values is not None:
                np.save(folder / f"{name}.npy", values.astype(np.float16), allow_pickle=False)

    def counted_anew(self, counts: NDArray[np.int64]) -> ItemSpaces:
        """Gives the same vectors with the popularity of later counts (N,)."""
        return replace(self, popularity=popularity_of(counts))

    @property
    def names(self) -> tuple[str, ...]:
        """Those of `schema.SPACES` that there are vectors for."""
        return SPACES if self.factors is not None else SPACES[:1]

    def vectors(self, space: str) -> _Array:
        """Gives (N, D).

        Raises:
            ArgumentError: the name is unknown.
            BundleError: there are no factor vectors.
        """
        if space not in SPACES:
            raise ArgumentError(f"space: {space!r} is unknown; give one of {', '.join(SPACES)}")
        if space == "text":
            return self.text
        if self.factors is None:
            raise BundleError(f"space: this bundle has no factor vectors for {space!r}; run its recipe again")
        return self.factors if space == "factors" else self._both

    @cached_property
    def _both(self) -> _Array:
        assert self.factors is not None  # see `vectors`
        norms = np.linalg.norm(self.text, axis=1, keepdims=True)
        return np.concatenate([self.text / np.maximum(norms, 1e-12), self.factors], axis=1)

    def choose(
        self,
        candidates: _Ints,
        scores: _Array,
        *,
        k: int,
        diversity: float,
        strategy: str,
        space: str,
        category_weights: _Array | None = None,
        history_mix: _Array | None = None,
        chances: Chances | None = None,
        quotas: Quotas | None = None,
        explore: float = 0.0,
        seed: int = 0,
    ) -> tuple[_Ints, _Array]:
        """Chooses k of each user's candidates for relevance and diversity, in the order of relevance.

        Diversity decides which items are in a list, relevance in which order they stand: neither variety nor
        coverage of a list depends on its order, and the same items in order of relevance have more `ndcg`
        (MovieLens-100K, `msd`: a third of the loss is gone).

        Args:
            candidates: (U, N), items by relevance, best first; -1 for empty slots at the end.
            scores: (U, N), their relevance.
            k: list length.
            diversity: 0 keeps the relevance order exactly, 1 is the most diverse.
            strategy: one of `schema.STRATEGIES`.
            space: one of `schema.SPACES`, for `schema.VECTOR_STRATEGIES`; the others do not look at it.
            category_weights: (n_items, C), for `schema.CATEGORY_STRATEGIES`; see `rerank_lists`.
            history_mix: (U, C), for the same.
            chances: see `rerank_lists`.
            quotas: hold in every list.
            explore: share of the places, never the first, that is drawn from the candidates below the list;
                what is drawn stands where it was drawn to.
            seed: of that draw.

        Returns:
            Items and their relevance, (U, min(k, N)); -1 and -inf where a list ends early.

        Raises:
            BundleError: there is nothing to look at; see `vectors`.
            ArgumentError: see `rerank_lists`.
            DataError: quotas cannot be met.
        """
        if diversity > 0 and strategy == NOVEL and self.popularity is None:
            raise BundleError(f"strategy: this bundle cannot tell {NOVEL!r} items; run its recipe again")
        seen = diversity > 0 and strategy in VECTOR_STRATEGIES
        return rerank_lists(
            candidates,
            scores,
            self.vectors(space) if seen else self.text,
            k=k,
            diversity=diversity,
            strategy=strategy,
            category_weights=category_weights,
            history_mix=history_mix,
            popularity=self.popularity,
            chances=chances,
            by_relevance=True,
            quotas=quotas,
            explore=explore,
            seed=seed,
        )


def popularity_of(counts: NDArray[np.int64]) -> _Array:
    """Gives (N,): log(1 + count), 1 for the item that was taken most often.

    >>> popularity_of(np.array([0, 1, 3])).tolist()
    [0.0, 0.5, 1.0]
    """
    logs = np.log1p(counts)
    return (logs / max(float(logs.max(initial=0.0)), 1e-12)).astype(np.float32)
