"""Recommends from a bundle with numpy alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from lora_rec.bundle import read_manifest
from lora_rec.data.lists import Lists
from lora_rec.errors import BundleError, DataError, nearest_names
from lora_rec.rank.categories import Categories
from lora_rec.rank.head import RankingHead
from lora_rec.rank.recommendation import Recommendation, RecommendationTable
from lora_rec.rank.rerank import check_settings, rerank_lists
from lora_rec.rank.rules import Quotas, gather_candidates
from lora_rec.schema import CATEGORY_STRATEGIES, Manifest

RELATIVE_CANDIDATES = 10  # re-ranking sees at least ten times the list


@dataclass(frozen=True, eq=False)
class Recommender:
    """The light half of a bundle: item vectors, ids, texts and the ranking head."""

    manifest: Manifest
    item_ids: tuple[str, ...]
    item_fields: dict[str, list[str]]
    item_vectors: NDArray[np.float32]
    """(N, D), of the item tower, unit length."""
    similarity_vectors: NDArray[np.float32]
    """(N, H), item texts as the user tower reads them; their cosine says how alike two items are."""
    head: RankingHead
    metrics: dict[str, Any]
    """What metrics.json holds."""

    @classmethod
    def load(cls, folder: str | Path) -> Recommender:
        """Reads a bundle; see `bundle.read_manifest` for errors."""
        root = Path(folder)
        manifest = read_manifest(root)
        if not (root / "head.safetensors").is_file():
            raise BundleError(f"{folder}: no ranking head (head.safetensors); get the bundle again")
        items = json.loads((root / "items.json").read_text(encoding="utf-8"))
        vectors, similarity = (
            np.load(root / f"{name}_vectors.npy", allow_pickle=False).astype(np.float32)
            for name in ("item", "similarity")
        )
        head = RankingHead.from_arrays(load_file(root / "head.safetensors"))
        metrics = json.loads((root / "metrics.json").read_text(encoding="utf-8"))
        return cls(manifest, tuple(items["ids"]), items["fields"], vectors, similarity, head, metrics)

    @cached_property
    def titles(self) -> Sequence[str]:
        """The field `title`, or the first field, of each item."""
        return self.item_fields.get("title") or next(iter(self.item_fields.values()), list(self.item_ids))

    @cached_property
    def categories(self) -> Categories | None:
        """Of the items; None where the bundle names no field for them.

        Raises:
            DataError: the items lack the field, or it has too many values for categories.
        """
        ranking = self.manifest.ranking
        if ranking.category_field is None:
            return None
        return Categories.of_items(
            self.item_fields, ranking.category_field, separator=ranking.category_separator
        )

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {item_id: i for i, item_id in enumerate(self.item_ids)}

    def recommend(
        self,
        history: Sequence[str],
        *,
        k: int = 10,
        diversity: float | None = None,
        strategy: str | None = None,
        n_candidates: int | None = None,
        exclude: Sequence[str] = (),
        exclude_categories: Sequence[str] = (),
        quotas: Mapping[str, tuple[int | None, int | None]] | None = None,
        explore: float = 0.0,
        seed: int = 0,
        user_embedding: NDArray[np.float32] | None = None,
        strengths: Sequence[float] | None = None,
    ) -> list[Recommendation]:
        """Gives the best items that are not in the history.

        Args:
            history: item ids, oldest first.
            k: list length.
            diversity: 0 keeps the relevance order exactly, 1 is the most diverse; the bundle's own when left
                out.
            strategy: one of `schema.STRATEGIES`; the bundle's own when left out.
            n_candidates: items that re-ranking chooses from; the bundle's own, at least 10 k, when left out.
            exclude: item ids that are not given.
            exclude_categories: categories whose items are not given.
            quotas: category to the least and most items of it in the list; None for no limit.
            explore: share of the places that is drawn at random from the candidates below the list, never the
                first; 0 draws nothing.
            seed: of that draw, which differs between users.
            user_embedding: (D,), of the user tower (`load_towers(...).encode_users`), if there is one.
            strengths: how often each item of the history was taken (plays, purchases), if it is known.

        Raises:
            DataError: the history is empty or has an unknown id, strengths do not fit it, categories are
                asked for that the bundle does not have, or quotas cannot be met.
            ValueError: k, diversity or explore is out of range, or the strategy is unknown.
        """
        embeddings = None if user_embedding is None else np.asarray(user_embedding, dtype=np.float32)[None, :]
        table = self.recommend_users(
            {"": history},
            k=k,
            diversity=diversity,
            strategy=strategy,
            n_candidates=n_candidates,
            exclude=exclude,
            exclude_categories=exclude_categories,
            quotas=quotas,
            explore=explore,
            seed=seed,
            user_embeddings=embeddings,
            strengths=None if strengths is None else {"": strengths},
        )
        return list(table.rows[0])

    def recommend_users(
        self,
        histories: Mapping[str, Sequence[str]],
        *,
        k: int = 10,
        diversity: float | None = None,
        strategy: str | None = None,
        n_candidates: int | None = None,
        exclude: Sequence[str] = (),
        exclude_categories: Sequence[str] = (),
        quotas: Mapping[str, tuple[int | None, int | None]] | None = None,
        explore: float = 0.0,
        seed: int = 0,
        user_embeddings: NDArray[np.float32] | None = None,
        strengths: Mapping[str, Sequence[float]] | None = None,
    ) -> RecommendationTable:
        """Gives the lists of many users; see `recommend`.

        Args:
            histories: user id to item ids, oldest first.
            k: list length.
            diversity: see `recommend`.
            strategy: see `recommend`.
            n_candidates: see `recommend`.
            exclude: see `recommend`, as for the four that follow.
            exclude_categories: for every user.
            quotas: hold in every list.
            explore: of every list.
            seed: of the draw.
            user_embeddings: (U, D), in the order of `histories`.
            strengths: user id to one number per item of the history.
        """
        missing = [u for u in histories if strengths is not None and u not in strengths]
        if missing:
            raise DataError(
                f"strengths: user {missing[0]!r} is missing; give one number per item of the history"
            )
        lists = Lists.from_arrays(
            (self.find_items(h, where=f"history{f' of {u}' if u else ''}") for u, h in histories.items()),
            None if strengths is None else [strengths[u] for u in histories],
        )
        items, scores = self.rank(
            lists,
            k=k,
            diversity=diversity,
            strategy=strategy,
            n_candidates=n_candidates,
            exclude=exclude,
            exclude_categories=exclude_categories,
            quotas=quotas,
            explore=explore,
            seed=seed,
            user_embeddings=user_embeddings,
        )
        rows = tuple(
            tuple(
                Recommendation(place + 1, self.item_ids[item], float(score), self.titles[item])
                for place, (item, score) in enumerate(zip(row_items, row_scores, strict=True))
                if item >= 0
            )
            for row_items, row_scores in zip(items, scores, strict=True)
        )
        return RecommendationTable(tuple(str(u) for u in histories), rows)

    def rank(
        self,
        histories: Lists,
        *,
        k: int,
        diversity: float | None = None,
        strategy: str | None = None,
        n_candidates: int | None = None,
        exclude: Sequence[str] = (),
        exclude_categories: Sequence[str] = (),
        quotas: Mapping[str, tuple[int | None, int | None]] | None = None,
        explore: float = 0.0,
        seed: int = 0,
        user_embeddings: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Gives items (U, K) and scores (U, K) for histories of item indices; -1 where a list ends early."""
        own = self.manifest.ranking
        strategy, diversity = strategy or own.strategy, own.diversity if diversity is None else diversity
        check_settings(k=k, diversity=diversity, strategy=strategy, explore=explore)
        rules = Quotas.of(quotas, self._categories_for("quotas"), k=k) if quotas else None
        by_category = diversity > 0 and strategy in CATEGORY_STRATEGIES
        categories = self._categories_for(f"strategy: {strategy!r}") if by_category else None
        allowed = self._allowed(exclude, exclude_categories)

        def best(n: int, mask: NDArray[np.bool_] | None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            return self.head.top_k(histories, k=n, user_embeddings=user_embeddings, allowed=mask)

        if diversity == 0 and rules is None and explore == 0:
            return best(k, allowed)
        pool = max(k, n_candidates or max(own.n_candidates, RELATIVE_CANDIDATES * k))
        candidates, scores = gather_candidates(best, n_candidates=pool, k=k, allowed=allowed, quotas=rules)
        return rerank_lists(
            candidates,
            scores,
            self.similarity_vectors,
            k=k,
            diversity=diversity,
            strategy=strategy,
            category_weights=None if categories is None else categories.weights,
            history_mix=None if categories is None else categories.mix(histories),
            quotas=rules,
            explore=explore,
            seed=seed,
        )

    def _categories_for(self, asker: str) -> Categories:
        if self.categories is None:
            raise DataError(
                f"{asker}: needs categories, and this bundle names no field for them; set"
                " ranking.category_field in the recipe"
            )
        return self.categories

    def _allowed(self, items: Sequence[str], categories: Sequence[str]) -> NDArray[np.bool_] | None:
        if not len(items) and not len(categories):
            return None
        allowed = np.ones(len(self.item_ids), dtype=bool)
        if len(items):
            allowed[self.find_items(items, where="exclude")] = False
        if len(categories):
            where = "exclude_categories"
            known = self._categories_for(where)
            allowed &= ~(known.weights[:, known.find(categories, where=where)] > 0).any(axis=1)
        return allowed

    def find_items(self, item_ids: Sequence[str], *, where: str = "history") -> NDArray[np.int64]:
        """Gives the indices of item ids.

        Raises:
            DataError: there are none, or some are unknown; each is named with the nearest known ones.
        """
        if isinstance(item_ids, str):
            raise DataError(f"{where}: {item_ids!r} is one string; give a list of item ids")
        if len(item_ids) == 0:
            raise DataError(f"{where}: empty; give at least one item id, oldest first")
        unknown = [str(i) for i in item_ids if str(i) not in self._positions]
        if unknown:
            hints = []
            for name in unknown[:3]:
                near = nearest_names(name, self.item_ids)
                hints.append(f"{name!r}" + (f" (nearest: {', '.join(near)})" if near else ""))
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            raise DataError(
                f"{where}: unknown item id {', '.join(hints)}{more};"
                f" the catalogue has {len(self.item_ids):,} items, e.g. {', '.join(self.item_ids[:3])}"
            )
        return np.array([self._positions[str(i)] for i in item_ids], dtype=np.int64)
