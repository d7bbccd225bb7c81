"""Prepares the sets of the quality benchmark, each with its published protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality_texts import embed_texts

from lora_rec.data import (
    Dataset,
    EvaluationSet,
    ImpressionSplit,
    Lists,
    Split,
    SplitReport,
    keep_frequent,
    leave_last_basket_out,
    leave_last_out,
    split_impressions,
    split_randomly,
)
from lora_rec.data.dataset import Log
from lora_rec.data.publishers import PUBLISHERS, load_published
from lora_rec.pipeline.new_items import ENOUGH_USERS, MOST_PARTS
from lora_rec.text.domains import DOMAINS
from lora_rec.text.templates import render_items

NOVEMBER_14 = 1573689600
WITHHELD_SHARE, WITHHELD_SEED = 0.1, 0
VALIDATION_USERS = 5000
"""At most so many users, drawn once, are asked in a trial; only Beauty has more."""
FOLDERS = {
    "movielens-100k": ("movielens", "movielens-100k"),
    "amazon-beauty": ("amazon", "amazon-beauty-2014"),
    "lastfm": ("lastfm", "hetrec2011-lastfm-2k"),
    "online-retail": ("online-retail", "online-retail"),
    "mind": ("mind", "mind-small-5k"),
}
RANKED = tuple(name for name in FOLDERS if name != "mind")
WITH_TIMES = ("movielens-100k", "online-retail")
# MIND has no cold case: six in ten news of its test day were not shown before, and have seven in ten clicks.
SETS = (
    *RANKED,
    "mind",
    *(f"{name}-cold" for name in RANKED),
    *(f"{name}-latest-cold" for name in WITH_TIMES),
)


@dataclass(frozen=True, eq=False)
class Part:
    """What may be learned from, whom to rank for, and what each took."""

    fit: Lists
    """Items of users 0..n_users-1 to learn from, oldest first; empty where a user has none."""
    evaluation: EvaluationSet
    ages: NDArray[np.int64]
    """One per item of the histories: steps (items, or baskets) before the newest, which has 0."""
    withheld: NDArray[np.int64] | None
    """Cold sets: the items that nothing was learned of, sorted. Every validation target is one of them; those
    of the test are both kinds, so that what new items cost the known ones is seen."""


@dataclass(frozen=True, eq=False)
class RankingSet:
    """A set whose users get lists of the catalogue, without what they had.

    A system chooses on `validation`, learns again from `test.fit`, and answers for `test`.
    """

    name: str
    dataset: Dataset
    """Texts and ids; its interactions hold the test too, so learn from the parts alone."""
    split: Split
    """The same protocol as a `Split`; without withheld items in training, histories and other targets."""
    validations: tuple[Part, ...]
    """Settings are chosen by the mean over the users of all; several where a set is cold, since few users
    took one of a tenth of the items."""
    test: Part
    ordered: bool
    """Whether histories are in order of time; Last.fm's go from least to most played."""
    item_texts: tuple[str, ...]
    item_vectors: NDArray[np.float32]
    """(N, D), unit length, of the frozen MiniLM: the ruler of `ild@10`, and the text peers' vectors."""
    friends: NDArray[np.int64] | None
    """(E, 2), where the publisher has them."""
    whole: Log | None = None
    """Cold sets: all that lies before the test, as if nothing were withheld."""
    draw: int | None = None
    """Of the withheld items, where they are drawn."""
    folder: Path | None = None
    """Where the publisher's files are."""

    @property
    def validation(self) -> Part:
        """The first of them."""
        return self.validations[0]

    @property
    def n_items(self) -> int:
        """Size of the catalogue, withheld items included."""
        return self.dataset.n_items


@dataclass(frozen=True, eq=False)
class ImpressionSet:
    """A set of shown lists, each to be ordered so that its clicks come first."""

    name: str
    dataset: Dataset
    impressions: ImpressionSplit
    item_texts: tuple[str, ...]
    item_vectors: NDArray[np.float32]
    """As in `RankingSet`."""
    categories: NDArray[np.int64]
    """(N,), the number of each item's category."""
    folder: Path | None = None
    """As in `RankingSet`."""

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return self.dataset.n_items


Prepared = RankingSet | ImpressionSet


def prepare_set(name: str, data_root: Path, cache: Path, *, draw: int = WITHHELD_SEED) -> Prepared:
    """Reads and splits one set.

    Args:
        name: one of `SETS`.
        data_root: holds the folders of `FOLDERS`.
        cache: where the vectors of the texts are kept.
        draw: of the withheld items of a cold set.
    """
    base = base_of(name)
    publisher, folder = FOLDERS[base]
    published = load_published(publisher, data_root / folder)
    dataset = published.dataset
    if base == "online-retail":
        dataset = keep_frequent(dataset, min_interactions=5)
    template = DOMAINS[PUBLISHERS[publisher].domain].item_template
    texts = tuple(render_items(template, dataset.item_fields))
    vectors = embed_texts(texts, cache)
    if published.impressions is not None:
        _, categories = np.unique(np.array(dataset.item_fields["category"]), return_inverse=True)
        parts = split_impressions(published.impressions, test_from=NOVEMBER_14)
        numbers = categories.astype(np.int64)
        return ImpressionSet(name, dataset, parts, texts, vectors, numbers, data_root / folder)
    splits: dict[str, Callable[[], Split]] = {
        "movielens-100k": lambda: leave_last_out(dataset),
        "amazon-beauty": lambda: leave_last_out(dataset, ordered=True),
        "lastfm": lambda: split_randomly(dataset, seed=0),
        "online-retail": lambda: leave_last_basket_out(dataset),
    }
    prepared = ranking_set(name, dataset, splits[base](), texts, vectors, ordered=base != "lastfm")
    prepared = replace(prepared, friends=published.friends, folder=data_root / folder)
    if name.endswith("-latest-cold"):
        prepared = withhold_items(prepared, by_date=True)
    elif name.endswith("-cold"):
        prepared = withhold_items(prepared, seed=draw)
    return replace(prepared, validations=tuple(map(sample_users, prepared.validations)))


def ranking_set(
    name: str,
    dataset: Dataset,
    split: Split,
    item_texts: tuple[str, ...],
    item_vectors: NDArray[np.float32],
    *,
    ordered: bool,
) -> RankingSet:
    """Gives both parts of a split; items of one user and one time are one step where a split has baskets."""
    by_basket = split.report.name.startswith("leave_last_basket_out")
    validation, test = (
        Part(fit, chosen, _ages(dataset, chosen, by_basket=by_basket), None)
        for fit, chosen in (
            (split.train_histories(), split.validation),
            (split.refit_histories(), split.test),
        )
    )
    return RankingSet(name, dataset, split, (validation,), test, ordered, item_texts, item_vectors, None)


def withhold_items(
    prepared: RankingSet,
    *,
    share: float = WITHHELD_SHARE,
    seed: int = WITHHELD_SEED,
    by_date: bool = False,
) -> RankingSet:
    """Makes a set cold: a share of the items is in no training and no history.

    These are drawn at random, or are those that anybody took first at the latest date. Another share, or that
    which came before, is for validation in the same way; nothing is learned of either while a system chooses,
    and of the first alone in the refit. Shares are drawn for validation until there are as many users, or
    parts, as our own systems withhold items from. Targets are the withheld items of the protocol's targets,
    so nothing that a system sees lies after them. The split of a cold set lacks the first share alone.
    """
    n_items = prepared.n_items
    drawn = np.random.default_rng(seed).permutation(n_items)
    if by_date:
        drawn = drawn[np.argsort(-_first_times(prepared.dataset)[drawn], kind="stable")]
    size = int(round(share * n_items))
    for_test = np.sort(drawn[:size])
    known_at_test = ~np.isin(np.arange(n_items), for_test)
    warm = prepared.validation
    validations: list[Part] = []
    while len(validations) < (1 if by_date else MOST_PARTS) and _n_users(validations) < ENOUGH_USERS:
        first = (1 + len(validations)) * size
        for_validation = np.sort(drawn[first : first + size])
        known_at_validation = known_at_test & ~np.isin(np.arange(n_items), for_validation)
        validations.append(_withhold(warm, known_at_validation, for_validation))
    test = _withhold(prepared.test, known_at_test, for_test, keep_known=True)
    split = prepared.split
    # Our own systems withhold items of their own to choose by, so they may learn of the second share.
    split = replace(
        split,
        train_log=split.train_log.take(known_at_test[split.train_log.items]),
        validation_log=split.validation_log.take(known_at_test[split.validation_log.items]),
        validation=_withhold(warm, known_at_test, np.flatnonzero(known_at_test)).evaluation,
        test=test.evaluation,
        report=SplitReport(name=f"{split.report.name}, {size} items withheld", kept={}),
    )
    return replace(
        prepared,
        split=split,
        validations=tuple(validations),
        test=test,
        whole=prepared.split.refit_log,
        draw=None if by_date else seed,
    )


def _n_users(parts: Sequence[Part]) -> int:
    return sum(len(part.evaluation) for part in parts)


def base_of(name: str) -> str:
    """Gives the set that a cold case is made of.

    >>> base_of("online-retail-latest-cold"), base_of("mind")
    ('online-retail', 'mind')
    """
    return name.removesuffix("-cold").removesuffix("-latest")


def _first_times(dataset: Dataset) -> NDArray[np.int64]:
    """Gives (N,), when each item was first taken; 0 if never, so that it counts as old."""
    assert dataset.times is not None  # see WITH_TIMES
    first = np.full(dataset.n_items, np.iinfo(np.int64).max)
    np.minimum.at(first, dataset.items, dataset.times)
    return np.where(first == np.iinfo(np.int64).max, 0, first)


def sample_users(part: Part, *, n_users: int = VALIDATION_USERS, seed: int = 0) -> Part:
    """Draws users of a part, so that a trial on a large set takes no longer than on another."""
    n = len(part.evaluation)
    if n <= n_users:
        return part
    chosen = np.sort(np.random.default_rng(seed).choice(n, n_users, replace=False))
    rows = _values_of(part.evaluation.histories, chosen)
    return Part(part.fit, part.evaluation.take(chosen), part.ages[rows], part.withheld)


def _withhold(
    part: Part, known: NDArray[np.bool_], withheld: NDArray[np.int64], *, keep_known: bool = False
) -> Part:
    found, wanted = part.evaluation, np.isin(np.arange(len(known)), withheld)
    wanted |= keep_known & known
    ages = part.ages[known[found.histories.values]]
    histories, targets = found.histories.keep(known), found.targets.keep(wanted)
    chosen = np.flatnonzero((histories.counts > 0) & (targets.counts > 0))
    fit = part.fit.keep(known)
    rows = _values_of(histories, chosen)
    times = None if found.times is None else found.times[chosen]
    evaluation = EvaluationSet(found.users[chosen], histories.take(chosen), targets.take(chosen), times)
    return Part(fit, evaluation, ages[rows], withheld)


def _values_of(lists: Lists, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Gives the places of the chosen lists' values."""
    return Lists(np.arange(len(lists.values)), lists.offsets).take(chosen).values


def _ages(dataset: Dataset, chosen: EvaluationSet, *, by_basket: bool) -> NDArray[np.int64]:
    histories = chosen.histories
    ends = np.repeat(histories.offsets[1:], histories.counts)
    if not by_basket or dataset.times is None:
        return ends - 1 - np.arange(len(histories.values))
    pairs, first = np.unique(dataset.users * dataset.n_items + dataset.items, return_index=True)
    owners = np.repeat(chosen.users, histories.counts)
    times = dataset.times[first[np.searchsorted(pairs, owners * dataset.n_items + histories.values)]]
    opens = np.concatenate([[0], (np.diff(times) != 0) | (np.diff(owners) != 0)])
    basket = np.cumsum(opens)
    return np.asarray(basket[ends - 1] - basket)
