"""Recommends from a bundle with numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import BundleError, DataError
from lora_rec.rank.candidates import CandidateScorer
from lora_rec.rank.catalogue import Catalogue
from lora_rec.rank.chances import Chances
from lora_rec.rank.check import check_choice, check_own_strength, check_settings
from lora_rec.rank.explain import Explanation, explain_items
from lora_rec.rank.head import RankingHead
from lora_rec.rank.recommendation import Recommendation, RecommendationTable
from lora_rec.rank.rules import Quotas, count_candidates, gather_candidates
from lora_rec.rank.search import Top, Wanted
from lora_rec.rank.shown import order_shown
from lora_rec.rank.spaces import ItemSpaces
from lora_rec.rank.stored import read_stored
from lora_rec.schema import CATEGORY_STRATEGIES


@dataclass(frozen=True, eq=False)
class Recommender(Catalogue):
    """The light half of a bundle: item vectors, ids, texts and the ranking head."""

    item_vectors: NDArray[np.float32]
    """(N, D), of the item tower, unit length."""
    spaces: ItemSpaces
    """What re-ranking looks at: vectors whose cosine says how alike two items are."""
    _head: RankingHead | None
    metrics: dict[str, Any]
    """What metrics.json holds."""
    _shown: CandidateScorer | None = None

    @classmethod
    def load(cls, folder: str | Path) -> Recommender:
        """Reads a bundle; see `stored.read_stored` for errors."""
        return cls(*read_stored(folder), folder=Path(folder))

    @property
    def head(self) -> RankingHead:
        """The ranking head.

        Raises:
            BundleError: the bundle orders shown lists and has none.
        """
        if self._head is None:
            raise BundleError(
                "bundle: it orders lists that were shown and ranks no catalogue; call rank_shown,"
                " or lora-rec recommend with --shown"
            )
        return self._head

    def recommend(
        self,
        history: Sequence[str],
        *,
        k: int = 10,
        diversity: float | None = None,
        strategy: str | None = None,
        space: str | None = None,
        n_candidates: int | None = None,
        exclude: Sequence[str] = (),
        exclude_categories: Sequence[str] = (),
        quotas: Mapping[str, tuple[int | None, int | None]] | None = None,
        explore: float = 0.0,
        seed: int = 0,
        user_embedding: NDArray[np.float32] | None = None,
        strengths: Sequence[float] | None = None,
        skip_unknown: bool = False,
        explain: bool = False,
    ) -> list[Recommendation]:
        """Gives the best items that are not in the history.

        Args:
            history: item ids, oldest first; empty for somebody new, who gets what most take.
            k: list length.
            diversity: 0 keeps the relevance order exactly, 1 is the most diverse; the bundle's own when left
                out, which is 0 unless `lora-rec tune-diversity` or the recipe's `ranking.keep` chose another.
            strategy: one of `schema.STRATEGIES`; the bundle's own when left out.
            space: vectors that say how alike items are, one of `schema.SPACES`; the bundle's own when left
                out.
            n_candidates: items that re-ranking chooses from; the bundle's own, at least 10 k, when left out.
            exclude: item ids that are not given.
            exclude_categories: categories whose items are not given.
            quotas: category to the least and most items of it in the list; None for no limit.
            explore: share of the places that is drawn at random from the candidates below the list, never the
                first; 0 draws nothing.
            seed: of that draw, which differs between users.
            user_embedding: (D,), of the user tower (`load_towers(...).encode_users`), if there is one.
            strengths: how often each item of the history was taken (plays, purchases), if it is known.
            skip_unknown: leave out what the bundle does not know, say items that are no longer sold.
            explain: also say which items of the history carried each item, see `explain`; takes longer.

        Raises:
            DataError: the history has an unknown id, strengths do not fit it, categories are asked for that
                the bundle does not have, or quotas cannot be met.
            ArgumentError: k, diversity, n_candidates or explore is out of range, the strategy or the space is
                unknown, or one of the two would have no effect or another one than meant.
        """
        embeddings = None if user_embedding is None else np.asarray(user_embedding, dtype=np.float32)[None, :]
        table = self.recommend_users(
            {"": history},
            k=k,
            diversity=diversity,
            strategy=strategy,
            space=space,
            n_candidates=n_candidates,
            exclude=exclude,
            exclude_categories=exclude_categories,
            quotas=quotas,
            explore=explore,
            seed=seed,
            user_embeddings=embeddings,
            strengths=None if strengths is None else {"": strengths},
            skip_unknown=skip_unknown,
            explain=explain,
        )
        return list(table.rows[0])

    def rank_shown(
        self,
        history: Sequence[str],
        *,
        shown: Sequence[str],
        new_items: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> list[Recommendation]:
        """Orders the items of a list that is shown anyway, best first; see `rank.shown`.

        Args:
            history: item ids, oldest first; may be empty, and then what everybody clicks decides.
            shown: item ids, each once.
            new_items: id to vector (H,) of items that the bundle has never seen, from their texts:
                `load_towers(bundle).read_items`. Their title is "".

        Raises:
            DataError: nothing is shown, an id is unknown or there twice, or a vector does not fit.
            BundleError: the bundle ranks a catalogue and has not learned from shown lists.
        """
        ordered = order_shown(
            self._shown,
            history,
            shown=shown,
            new_items={} if new_items is None else new_items,
            find=self.find_items,
        )
        places = self.positions
        return [
            Recommendation(rank, name, score, self.titles[places[name]] if name in places else "")
            for rank, (name, score) in enumerate(ordered, start=1)
        ]

    def recommend_users(
        self,
        histories: Mapping[str, Sequence[str]],
        *,
        k: int = 10,
        diversity: float | None = None,
        strategy: str | None = None,
        space: str | None = None,
        n_candidates: int | None = None,
        exclude: Sequence[str] = (),
        exclude_categories: Sequence[str] = (),
        quotas: Mapping[str, tuple[int | None, int | None]] | None = None,
        explore: float = 0.0,
        seed: int = 0,
        user_embeddings: NDArray[np.float32] | None = None,
        strengths: Mapping[str, Sequence[float]] | None = None,
        skip_unknown: bool = False,
        explain: bool = False,
    ) -> RecommendationTable:
        """Gives the lists of many users; see `recommend`, whose settings hold for every user.

        `histories` maps user ids to item ids, oldest first, and `strengths` to one number for each of these;
        `user_embeddings` is (U, D), in the order of `histories`.
        """
        # Of a pandas Series, `items` gives users and histories, and a plain loop histories alone.
        histories = dict(histories.items())
        strengths = None if strengths is None else dict(strengths.items())
        lists = self.find_histories(histories, strengths, skip_unknown=skip_unknown)
        if user_embeddings is not None:
            user_embeddings = np.asarray(user_embeddings, dtype=np.float32)
        items, scores = self.rank(
            lists,
            k=k,
            diversity=diversity,
            strategy=strategy,
            space=space,
            n_candidates=n_candidates,
            exclude=exclude,
            exclude_categories=exclude_categories,
            quotas=quotas,
            explore=explore,
            seed=seed,
            user_embeddings=user_embeddings,
        )
        rows = []
        for user, (row_items, row_scores) in enumerate(zip(items, scores, strict=True)):
            chosen, relevance = row_items[row_items >= 0], row_scores[row_items >= 0]
            text = None if user_embeddings is None else user_embeddings[[user]]
            why = self.explain(lists.take([user]), chosen, user_embedding=text) if explain else repeat(None)
            rows.append(
                tuple(
                    Recommendation(rank, self.item_ids[item], float(score), self.titles[item], reason)
                    for rank, item, score, reason in zip(count(1), chosen, relevance, why, strict=False)
                )
            )
        return RecommendationTable(tuple(str(u) for u in histories), tuple(rows))

    def explain(
        self, history: Lists, items: NDArray[np.int64], *, user_embedding: NDArray[np.float32] | None = None
    ) -> list[Explanation]:
        """Gives the reasons for some items' scores for one history of item indices; see `explain_items`."""
        return explain_items(
            self.head,
            history,
            items,
            item_ids=self.item_ids,
            titles=self.titles,
            user_embedding=user_embedding,
        )

    def rank(
        self,
        histories: Lists,
        *,
        k: int,
        diversity: float | None = None,
        strategy: str | None = None,
        space: str | None = None,
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
        if diversity is None:
            check_own_strength(own, strategy, space)
        strategy, diversity = strategy or own.strategy, own.diversity if diversity is None else diversity
        check_settings(k=k, diversity=diversity, strategy=strategy, explore=explore, seed=seed)
        check_choice(None if space == own.space else space, strategy, n_candidates)
        rules = Quotas.of(quotas, self.categories_for("quotas"), k=k) if quotas else None
        weights = mix = None
        if diversity > 0 and strategy in CATEGORY_STRATEGIES:
            categories = self.categories_for(f"strategy: {strategy!r}")
            weights, mix = categories.weights, categories.mix(histories)
        allowed = self.allowed(exclude, exclude_categories)
        expected = (len(histories), self.manifest.width)
        if user_embeddings is not None and np.shape(user_embeddings) != expected:
            raise DataError(
                f"user_embeddings: shape {np.shape(user_embeddings)} where {expected} is needed; give one row"
                " per user, of towers.encode_users"
            )
        if user_embeddings is not None and not np.isfinite(user_embeddings).all():
            raise DataError("user_embeddings: a value is not finite; check what made them")

        def best(wanted: Sequence[Wanted]) -> list[Top]:
            return self.head.tops(histories, wanted, user_embeddings=user_embeddings)

        if diversity == 0 and rules is None and explore == 0:
            return best([(k, allowed)])[0]
        pool = max(k, n_candidates or count_candidates(own.n_candidates, k=k))
        candidates, scores = gather_candidates(best, n_candidates=pool, k=k, allowed=allowed, quotas=rules)
        return self.spaces.choose(
            candidates,
            scores,
            k=k,
            diversity=diversity,
            strategy=strategy,
            space=space or own.space,
            category_weights=weights,
            history_mix=mix,
            chances=Chances.of(own),
            quotas=rules,
            explore=explore,
            seed=seed,
        )
