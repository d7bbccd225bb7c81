"""The test users, ranked for again by the bundle as it serves: who gains on a baseline, and who loses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lora_rec.data.dataset import Dataset, Split
from lora_rec.page.run import SERVED, Run
from lora_rec.pipeline.evidence import PairedTest, compare_pairs, intervals_of, of_users
from lora_rec.pipeline.head import lists_at_moments
from lora_rec.pipeline.ranking import Comparison, LinearChoice
from lora_rec.pipeline.slices import Slice, in_groups, slice_users
from lora_rec.pipeline.spaces import factor_ruler
from lora_rec.pipeline.tradeoff import lists_by
from lora_rec.pipeline.weights import Recent, recent_of
from lora_rec.rank.chances import Chances
from lora_rec.rank.explain import Explanation, explain_items
from lora_rec.rank.recent import RecentCounts
from lora_rec.rank.rules import count_candidates
from lora_rec.rank.tradeoff import PLAIN, Point

if TYPE_CHECKING:
    from lora_rec.export.explain import MatchExplanation
    from lora_rec.export.loaded import LoadedTowers

AGAINST = "ease"
"""The baseline that users' lists are set beside."""
HELPED, HURT, RANDOM = "helped", "hurt", "drawn at random"
MOST_HISTORY = 12
MOST_TARGETS = 10


@dataclass(frozen=True, eq=False)
class Again:
    """The bundle and the baselines, ranked again for the run's test users."""

    dataset: Dataset
    split: Split
    comparison: Comparison
    rows: dict[str, dict[str, float]]
    """System to its metrics, as in metrics.json, but for those that look at the frozen towers."""
    intervals: dict[str, dict[str, tuple[float, float]]]
    tests: tuple[PairedTest, ...]
    slices: tuple[Slice, ...]
    ndcg: dict[str, NDArray[np.float64]]
    """Of `SERVED` and `AGAINST`, (U,)."""
    recent: Recent | None

    @property
    def difference(self) -> NDArray[np.float64]:
        """(U,), what each user gains in `ndcg`."""
        return self.ndcg[SERVED] - self.ndcg[AGAINST]


@dataclass(frozen=True)
class Listed:
    """An item of a list."""

    item_id: str
    title: str
    is_hit: bool
    """Whether the user took it next."""
    n_users: int
    """Who took it before the test."""
    explanation: Explanation | None = None


@dataclass(frozen=True)
class Example:
    """A test user with both lists."""

    kind: str
    """`HELPED`, `HURT` or `RANDOM`."""
    user_id: str
    history: tuple[str, ...]
    """Titles, newest last, at most `MOST_HISTORY` of them."""
    n_history: int
    targets: tuple[str, ...]
    """Titles of what the user took next, at most `MOST_TARGETS`."""
    n_targets: int
    served: tuple[Listed, ...]
    against: tuple[Listed, ...]
    ndcg: float
    ndcg_against: float
    history_items: tuple[int, ...] = field(repr=False, default=())
    """All of the history, as item indices."""
    words: MatchExplanation | None = None
    words_title: str = ""
    """Of the item whose words these are."""


def rank_again(run: Run, dataset: Dataset, split: Split) -> Again:
    """Ranks by the bundle with its own setting and by the baselines with the numbers that the run chose.

    Args:
        run: its linear weights are kept in half precision, so a list may differ a little from the run's.
        dataset: of `read_data`.
        split: of `read_data`.
    """
    rec, k = run.recommender, run.k
    chosen = run.metrics["chosen"]
    comparison = Comparison(split, ruler=None, factors=factor_ruler(split), k=k)
    comparison.add_baselines(LinearChoice(**chosen["ease"]))
    counts = RecentCounts.from_log(split.refit_log, n_items=split.n_items)
    recent = recent_of(counts, split.test, half_life=chosen["ranking_head"]["half_life"])
    own = run.manifest.ranking
    setting = Point(own.strategy if own.diversity else PLAIN, own.space, own.diversity, {})
    n_candidates = count_candidates(own.n_candidates, k=k) if own.diversity else k
    pool, scores = lists_at_moments(rec.head, split.test, recent=recent, k=max(k, n_candidates))
    comparison.lists[SERVED] = lists_by(
        rec.spaces,
        pool,
        scores,
        setting,
        k=k,
        chances=Chances.of(own),
        category_weights=None if rec.categories is None else rec.categories.weights,
        history_mix=None if rec.categories is None else rec.categories.mix(split.test.histories),
    )
    slices = slice_users(comparison.lists, split, k=k, categories=rec.categories, pair=(SERVED, AGAINST))
    n_others = max(Counter(test.metric for test in run.tests).values(), default=0)
    return Again(
        dataset=dataset,
        split=split,
        comparison=comparison,
        rows=comparison.table(),
        intervals=intervals_of(comparison),
        tests=tuple(compare_pairs(comparison, [(SERVED, AGAINST)], n_others=n_others)),
        slices=in_groups(slices),
        ndcg={name: of_users(comparison, name)[f"ndcg@{k}"] for name in (SERVED, AGAINST)},
        recent=recent,
    )


def choose_users(difference: NDArray[np.float64], *, n: int, seed: int = 0) -> list[tuple[str, int]]:
    """Gives the users who gain most, those who lose most, and some of the others at random.

    Where many gain alike, chance decides among them; nobody is given twice.

    Args:
        difference: (U,), what each gains.
        n: of each kind, at most.
        seed: of all draws.

    Returns:
        Kind and row of each.

    >>> choose_users(np.array([0.0, 0.5, -1.0, 0.25]), n=1)
    [('helped', 1), ('hurt', 2), ('drawn at random', 0)]
    """
    order = np.random.default_rng(seed).permutation(len(difference))
    by_gain = order[np.argsort(-difference[order], kind="stable")]
    helped = [int(row) for row in by_gain[:n] if difference[row] > 0]
    hurt = [int(row) for row in by_gain[::-1][:n] if difference[row] < 0]
    others = [int(row) for row in order if row not in {*helped, *hurt}][:n]
    return [(kind, row) for kind, rows in ((HELPED, helped), (HURT, hurt), (RANDOM, others)) for row in rows]


def show_users(
    run: Run, again: Again, *, n: int, seed: int = 0, show_progress: bool = False
) -> list[Example]:
    """Gives some users with both lists, and why each item is in the bundle's.

    Args:
        run: of the bundle.
        again: what `rank_again` gave.
        n: users of each kind, at most.
        seed: see `choose_users`.
        show_progress: a bar.
    """
    chosen = choose_users(again.difference, n=n, seed=seed)
    users = tqdm(chosen, desc="users", disable=not show_progress)
    return [_example(run, again, kind, row) for kind, row in users]


def _example(run: Run, again: Again, kind: str, row: int) -> Example:
    titles, test = run.recommender.titles, again.split.test
    history, targets = test.histories[row], test.targets[row]
    served = again.comparison.lists[SERVED][row]
    served = served[served >= 0]
    reasons = _explain(run, again, row, served)
    listed = _lister(run, again, set(targets.tolist()))
    against = again.comparison.lists[AGAINST][row]
    return Example(
        kind=kind,
        user_id=str(again.dataset.user_ids[test.users[row]]),
        history=tuple(titles[item] for item in history[-MOST_HISTORY:]),
        n_history=len(history),
        targets=tuple(titles[item] for item in targets[:MOST_TARGETS]),
        n_targets=len(targets),
        served=tuple(listed(item, why) for item, why in zip(served, reasons, strict=True)),
        against=tuple(listed(item, None) for item in against[against >= 0]),
        ndcg=float(again.ndcg[SERVED][row]),
        ndcg_against=float(again.ndcg[AGAINST][row]),
        history_items=tuple(history.tolist()),
    )


def _explain(run: Run, again: Again, row: int, items: NDArray[np.int64]) -> list[Explanation]:
    """Explains the scores as they were at the user's moment."""
    head = run.recommender.head
    if again.recent is not None:
        head = replace(head, recent=again.recent(np.array([row]))[0])
    rec = run.recommender
    history = again.split.test.histories.take([row])
    return explain_items(head, history, items, item_ids=rec.item_ids, titles=rec.titles)


def _lister(run: Run, again: Again, hits: set[int]) -> Callable[[int, Explanation | None], Listed]:
    rec, counts = run.recommender, again.split.user_counts(include_validation=True)

    def listed(item: int, why: Explanation | None) -> Listed:
        return Listed(rec.item_ids[item], rec.titles[item], int(item) in hits, int(counts[item]), why)

    return listed


def add_words(
    run: Run,
    examples: list[Example],
    towers: LoadedTowers,
    *,
    n: int,
    n_subsets: int = 200,
    show_progress: bool = False,
) -> list[Example]:
    """Says for the first users which words and fields carry one item of the list: the hit, or the first.

    Args:
        run: of the bundle.
        examples: what `show_users` gave.
        towers: of the same bundle.
        n: how many users; each takes 5 to 11 seconds on a busy core for the quickstart's models.
        n_subsets: see `LoadedTowers.explain`.
        show_progress: a bar.
    """
    rec, result = run.recommender, list(examples)
    for place in tqdm(range(min(n, len(examples))), desc="words", disable=not show_progress):
        example = examples[place]
        if not example.served:
            continue
        item = next((item for item in example.served if item.is_hit), example.served[0])
        words = towers.explain(
            example.history_items, rec.positions[item.item_id], rec.item_fields, n_subsets=n_subsets
        )
        result[place] = replace(example, words=words, words_title=item.title)
    return result
