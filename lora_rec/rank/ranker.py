"""Recommends from a bundle with numpy alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from lora_rec.bundle import read_manifest
from lora_rec.data.lists import Lists
from lora_rec.errors import BundleError, DataError, nearest_names
from lora_rec.rank.candidates import CandidateScorer
from lora_rec.rank.explain import Explanation, explain_items
from lora_rec.rank.head import RankingHead
from lora_rec.rank.shown import order_shown
from lora_rec.rank.spaces import ItemSpaces
from lora_rec.schema import Manifest

if TYPE_CHECKING:
    import pandas as pd

RELATIVE_CANDIDATES = 10  # re-ranking sees at least ten times the list


@dataclass(frozen=True)
class Recommendation:
    """One item of a list."""

    rank: int
    """Place in the list, from 1."""
    item_id: str
    score: float
    """Relevance; comparable within one list."""
    title: str
    explanation: Explanation | None = None
    """Where it was asked for; of the relevance, not of what re-ranking made of it."""


@dataclass(frozen=True)
class RecommendationTable:
    """The lists of many users, one row per recommended item."""

    user_ids: tuple[str, ...]
    rows: tuple[tuple[Recommendation, ...], ...]
    """One list per user."""

    def __len__(self) -> int:
        return sum(len(row) for row in self.rows)

    def to_columns(self) -> dict[str, list[Any]]:
        """Gives the columns user_id, rank, item_id, score and title."""
        columns: dict[str, list[Any]] = {"user_id": [], "rank": [], "item_id": [], "score": [], "title": []}
        for user_id, row in zip(self.user_ids, self.rows, strict=True):
            for item in row:
                for name, value in zip(
                    columns, (user_id, item.rank, item.item_id, item.score, item.title), strict=True
                ):
                    columns[name].append(value)
        return columns

    def to_pandas(self) -> pd.DataFrame:
        """Gives the columns as a data frame; needs pandas."""
        import pandas as pd

        return pd.DataFrame(self.to_columns())


@dataclass(frozen=True, eq=False)
class Recommender:
    """The light half of a bundle: item vectors, ids, texts and the ranking head."""

    manifest: Manifest
    item_ids: tuple[str, ...]
    item_fields: dict[str, list[str]]
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
        """Reads a bundle; see `bundle.read_manifest` for errors."""
        root = Path(folder)
        manifest = read_manifest(root)
        heads = {name for name in ("head", "shown") if f"{name}.safetensors" in manifest.files}
        if not heads:
            raise BundleError(f"{folder}: no ranking head (head.safetensors); get the bundle again")
        arrays = {name: load_file(root / f"{name}.safetensors") for name in heads}
        items = json.loads((root / "items.json").read_text(encoding="utf-8"))
        vectors = np.load(root / "item_vectors.npy", allow_pickle=False).astype(np.float32)
        spaces = ItemSpaces.load(root)
        head = RankingHead.from_arrays(arrays["head"]) if "head" in heads else None
        shown = CandidateScorer.from_arrays(arrays["shown"]) if "shown" in heads else None
        metrics = json.loads((root / "metrics.json").read_text(encoding="utf-8"))
        return cls(manifest, tuple(items["ids"]), items["fields"], vectors, spaces, head, metrics, shown)

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

    @cached_property
    def titles(self) -> Sequence[str]:
        """The field `title`, or the first field, of each item."""
        return self.item_fields.get("title") or next(iter(self.item_fields.values()), list(self.item_ids))

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
        space: str | None = None,
        n_candidates: int | None = None,
        user_embedding: NDArray[np.float32] | None = None,
        strengths: Sequence[float] | None = None,
        explain: bool = False,
    ) -> list[Recommendation]:
        """Gives the best items that are not in the history.

        Args:
            history: item ids, oldest first.
            k: list length.
            diversity: 0 keeps the relevance order exactly, 1 is the most diverse; the bundle's own when left
                out, which is 0 unless `lora-rec tune-diversity` or the recipe's `ranking.keep` chose another.
            strategy: one of `schema.STRATEGIES`; the bundle's own when left out.
            space: vectors that say how alike items are, one of `schema.SPACES`; the bundle's own when left
                out.
            n_candidates: items that re-ranking chooses from; the bundle's own, at least 10 k, when left out.
            user_embedding: (D,), of the user tower (`load_towers(...).encode_users`), if there is one.
            strengths: how often each item of the history was taken (plays, purchases), if it is known.
            explain: also say which items of the history carried each item, see `explain`; takes longer.

        Raises:
            DataError: the history is empty or has an unknown id, or strengths do not fit it.
            ValueError: k or diversity is out of range.
        """
        embeddings = None if user_embedding is None else np.asarray(user_embedding, dtype=np.float32)[None, :]
        table = self.recommend_users(
            {"": history},
            k=k,
            diversity=diversity,
            strategy=strategy,
            space=space,
            n_candidates=n_candidates,
            user_embeddings=embeddings,
            strengths=None if strengths is None else {"": strengths},
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
            self._shown, history, shown=shown, new_items=new_items or {}, find=self.find_items
        )
        places = self._positions
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
        user_embeddings: NDArray[np.float32] | None = None,
        strengths: Mapping[str, Sequence[float]] | None = None,
        explain: bool = False,
    ) -> RecommendationTable:
        """Gives the lists of many users; see `recommend`.

        Args:
            histories: user id to item ids, oldest first.
            k: list length.
            diversity: see `recommend`.
            strategy: see `recommend`.
            space: see `recommend`.
            n_candidates: see `recommend`.
            user_embeddings: (U, D), in the order of `histories`.
            strengths: user id to one number per item of the history.
            explain: see `recommend`.
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
            space=space,
            n_candidates=n_candidates,
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
        user_embeddings: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Gives items (U, K) and scores (U, K) for histories of item indices; -1 where a list ends early."""
        if k < 1:
            raise ValueError(f"k: {k} is below 1; give the length of the list")
        own = self.manifest.ranking
        diversity = own.diversity if diversity is None else diversity
        if not 0 <= diversity <= 1:
            raise ValueError(f"diversity: {diversity} is not in [0, 1]")
        if diversity == 0:
            return self.head.top_k(histories, k=k, user_embeddings=user_embeddings)
        pool = n_candidates or max(own.n_candidates, RELATIVE_CANDIDATES * k)
        candidates, scores = self.head.top_k(histories, k=max(k, pool), user_embeddings=user_embeddings)
        return self.spaces.choose(
            candidates,
            scores,
            k=k,
            diversity=diversity,
            strategy=strategy or own.strategy,
            space=space or own.space,
        )

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
