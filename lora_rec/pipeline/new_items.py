"""Chooses how the ranking head scores items that nobody took, on items that are withheld to find out.

How often new items are shown is a trade-off: stretched far enough they push everything else out of the
lists, and scored like the rest they are hardly ever seen. So the recipe says what share of the known items'
`ndcg@10` they may cost, and they get the largest factor that costs no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import EvaluationSet
from lora_rec.data.lists import Lists
from lora_rec.metrics import ndcg_at_k
from lora_rec.pipeline.judge import JUDGED_K, best_lists
from lora_rec.pipeline.weights import Recent
from lora_rec.rank.head import RankingHead
from lora_rec.rank.new_items import NewItems, find_neighbours
from lora_rec.train.sequence import whiten

_Array = NDArray[np.float32]
WITHHELD_SHARE = 0.1
WIDTHS = (32, 64, 128, 256)
"""Principal components in which neighbours are looked for: few where texts are short and alike."""
FACTORS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0)
LEAST_USERS = 50
"""With fewer users who took a withheld item, the width is not chosen."""
DEFAULT_WIDTH = 64
HIDDEN = np.float32(-1e9)


@dataclass(frozen=True)
class NewItemChoice:
    """What was chosen, and what it gave on validation; `ndcg@10` all."""

    width: int
    factor: float
    new: float
    """Of withheld items, among all items."""
    known: float
    """Of the other items, with the withheld ones in the catalogue."""
    known_alone: float
    """The same, with the withheld ones hidden."""


def choose_new_items(
    head: RankingHead,
    text: _Array,
    counts: NDArray[np.int64],
    judged: EvaluationSet,
    *,
    recent: Recent | None,
    cost: float,
) -> NewItemChoice:
    """Withholds a tenth of the known items from histories and scores, and ranks them by their texts.

    What the head learned of the withheld items does not count: their scores are made of other items' alone.

    Args:
        head: its own `new_items` is not read.
        text: (N, T), vectors of the items' texts.
        counts: (N,), interactions that the head learned from.
        judged: validation users.
        recent: counts of each user's moment.
        cost: share of the known items' `ndcg@10` that may be given up.
    """
    known = np.flatnonzero(counts)
    drawn = np.random.default_rng(0).choice(known, int(WITHHELD_SHARE * len(known)), replace=False)
    withheld = np.sort(drawn)
    is_withheld = np.zeros(len(counts), dtype=bool)
    is_withheld[withheld] = True
    histories = judged.histories.keep(~is_withheld)
    new, others = judged.targets.keep(is_withheld), judged.targets.keep(~is_withheld)

    def base(rows: NDArray[np.int64]) -> _Array:
        return head.scores(histories.take(rows), recent=None if recent is None else recent(rows))

    without = is_withheld | (counts == 0)
    tables = {width: find_neighbours(whiten(text, width=width), without) for width in WIDTHS}
    width = DEFAULT_WIDTH
    if (new.counts > 0).sum() >= LEAST_USERS:

        def among_withheld(rows: NDArray[np.int64]) -> Iterator[_Array]:
            scores = base(rows)
            for table in tables.values():
                table.fill(scores)
                yield scores[:, withheld]

        lists = best_lists(among_withheld, len(judged), n_variants=len(WIDTHS))
        among = [_mean_ndcg(np.where(found >= 0, withheld[found], -1), new) for found in lists]
        width = WIDTHS[int(np.argmax(among))]

    def among_all(rows: NDArray[np.int64]) -> Iterator[_Array]:
        scores = base(rows)
        hidden = scores.copy()
        hidden[:, withheld] = HIDDEN
        yield hidden
        for factor in FACTORS:
            replace(tables[width], factor=factor).fill(scores)
            yield scores.copy()

    lists = best_lists(among_all, len(judged), n_variants=1 + len(FACTORS), exclude=histories)
    alone, *with_new = [_mean_ndcg(found, others) for found in lists]
    allowed = [place for place, value in enumerate(with_new) if value >= (1 - cost) * alone]
    place = max(allowed, default=0)
    return NewItemChoice(width, FACTORS[place], _mean_ndcg(lists[1 + place], new), with_new[place], alone)


def new_items_of(choice: NewItemChoice, text: _Array, counts: NDArray[np.int64]) -> NewItems:
    """Gives the table of the items that nobody took."""
    return find_neighbours(whiten(text, width=choice.width), counts == 0, factor=choice.factor)


def _mean_ndcg(lists: NDArray[np.int64], targets: Lists) -> float:
    """Gives the mean over the users who have a target."""
    rows = np.flatnonzero(targets.counts)
    if not len(rows):
        return 0.0
    return float(ndcg_at_k(lists[rows], list(targets.take(rows)), k=JUDGED_K).mean())
