"""Chooses how the ranking head scores items that nobody took, on items that are withheld to find out.

How often new items are shown is a trade-off: stretched far enough they push everything else out of the
lists, and scored like the rest they are hardly ever seen. So the recipe says what share of the known items'
`ndcg@10` they may cost, and they get the largest factor that costs no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import EvaluationSet
from lora_rec.data.lists import Lists
from lora_rec.metrics import ndcg_at_k
from lora_rec.pipeline.judge import JUDGED_K, best_lists
from lora_rec.pipeline.weights import Recent
from lora_rec.rank.head import RankingHead
from lora_rec.rank.new_items import NewItems, find_neighbours, no_new_items
from lora_rec.rank.sequence import SequencePart
from lora_rec.train.sequence import whiten

_Array = NDArray[np.float32]
N_PARTS = 10
"""The items are parted at random; one part after another is withheld."""
MOST_PARTS, ENOUGH_USERS = 5, 1000
"""Parts are withheld until so many users took a withheld item: 85 of a part, as on MovieLens-100K, chose the
width by chance."""
WIDTHS = (24, 48, 96, 192, 384)
"""Principal components in which neighbours are looked for: few where texts are short and alike."""
NEIGHBOURS = (32, 128)
"""How many: few where like texts are like products, as in a shop, many where texts say little. Withheld
artists of Last.fm gain a sixth of `ndcg@10` by 128 instead of 32 (.137 to .160, three draws) and little more
by 512, which take four times as long; withheld products of Online Retail lose a fiftieth."""
FACTORS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0)
HIDDEN = np.float32(-1e9)


@dataclass(frozen=True)
class NewItemChoice:
    """What was chosen, and what it gave on validation; `ndcg@10` all."""

    width: int
    n_neighbours: int
    factor: float
    new: float
    """Of withheld items, among all items."""
    known: float
    """Of the items that somebody took, with the others in the catalogue."""
    known_alone: float
    """The same, with the others hidden."""


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
    trials = []
    for withheld in np.array_split(np.random.default_rng(0).permutation(np.flatnonzero(counts)), N_PARTS):
        trials.append(_Trial(head, np.sort(withheld), counts == 0, judged, recent))
        if len(trials) == MOST_PARTS or sum(trial.n_users for trial in trials) >= ENOUGH_USERS:
            break
    whitened = {width: whiten(text, width=width) for width in WIDTHS}
    forms = [(width, n_neighbours) for n_neighbours in NEIGHBOURS for width in WIDTHS]
    among = [trial.among_withheld([(whitened[width], k) for width, k in forms]) for trial in trials]
    width, n_neighbours = forms[int(np.argmax([_mean(values) for values in zip(*among, strict=True)]))]
    among_all = [trial.among_all(whitened[width], n_neighbours) for trial in trials]
    new, known = (
        [_mean(values) for values in zip(*(part[kind] for part in among_all), strict=True)] for kind in (0, 1)
    )
    allowed = [place for place, value in enumerate(known[1:], 1) if value >= (1 - cost) * known[0]]
    place = max(allowed, default=1)
    return NewItemChoice(width, n_neighbours, FACTORS[place - 1], new[place], known[place], known[0])


class _Trial:
    """Ranks for the judged users as if nobody had taken the withheld items.

    Those that a user had before are no targets and are left out of that user's lists: nothing new is in a
    history.
    """

    def __init__(
        self,
        head: RankingHead,
        withheld: NDArray[np.int64],
        unknown: NDArray[np.bool_],
        judged: EvaluationSet,
        recent: Recent | None,
    ) -> None:
        is_withheld = np.zeros(len(unknown), dtype=bool)
        is_withheld[withheld] = True
        self._head, self._withheld, self._recent = replace(head, new_items=no_new_items()), withheld, recent
        self._new = is_withheld | unknown
        self._histories, self._had = judged.histories.keep(~is_withheld), judged.histories
        own = judged.histories.keep(is_withheld)
        self._had_withheld = Lists(np.searchsorted(withheld, own.values), own.offsets)
        # What nobody took gains with every factor, and would hide what the known items lose.
        self._targets = (judged.targets.keep(is_withheld), judged.targets.keep(~self._new))
        self.n_users = int((self._targets[0].counts > 0).sum())

    def among_withheld(self, forms: Iterable[tuple[_Array, int]]) -> list[NDArray[np.float64]]:
        """Gives `ndcg@10` among the withheld items by texts and neighbours, for the users who took one."""
        tables = [find_neighbours(texts, self._new, n_neighbours=k) for texts, k in forms]

        def variants(rows: NDArray[np.int64]) -> Iterator[_Array]:
            scores = self._scores(rows)
            for table in tables:
                table.fill(scores)
                yield scores[:, self._withheld]

        lists = best_lists(
            variants,
            len(self._histories),
            n_items=len(self._withheld),
            n_variants=len(tables),
            exclude=self._had_withheld,
        )
        found = [np.where(part >= 0, self._withheld[part], -1) for part in lists]
        return [_ndcg(part, self._targets[0]) for part in found]

    def among_all(
        self, text: _Array, n_neighbours: int
    ) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        """Gives `ndcg@10` among all items, of the withheld and of the others, hidden and by each factor."""
        table = find_neighbours(text, self._new, n_neighbours=n_neighbours)

        def variants(rows: NDArray[np.int64]) -> Iterator[_Array]:
            scores = self._scores(rows)
            hidden = scores.copy()
            hidden[:, self._new] = HIDDEN
            yield hidden
            for factor in FACTORS:
                replace(table, factor=factor).fill(scores)
                yield scores.copy()

        lists = best_lists(
            variants,
            len(self._histories),
            n_items=self._head.n_items,
            n_variants=1 + len(FACTORS),
            exclude=self._had,
        )
        new, known = ([_ndcg(part, targets) for part in lists] for targets in self._targets)
        return new, known

    def _scores(self, rows: NDArray[np.int64]) -> _Array:
        recent = None if self._recent is None else self._recent(rows)
        return self._head.scores(self._histories.take(rows), recent=recent)


def new_items_of(choice: NewItemChoice, text: _Array, counts: NDArray[np.int64]) -> NewItems:
    """Gives the table of the items that nobody took."""
    whitened = whiten(text, width=choice.width)
    return find_neighbours(whitened, counts == 0, factor=choice.factor, n_neighbours=choice.n_neighbours)


def place_by_neighbours(part: SequencePart, table: NewItems) -> SequencePart:
    """Gives items that the sequence part did not learn from the vectors and relevance of their neighbours.

    It saw them as negatives alone, and after a first purchase they no longer score as new items do. A score
    is linear in both, so this makes it the neighbours' mean.
    """
    items, bias = part.items.copy(), part.item_bias.copy()
    for item, near, weights in zip(table.items, table.neighbours, table.weights, strict=True):
        items[item], bias[item] = weights @ part.items[near], weights @ part.item_bias[near]
    return replace(part, items=items, item_bias=bias)


def _ndcg(lists: NDArray[np.int64], targets: Lists) -> NDArray[np.float64]:
    """Gives `ndcg@10` of each user who has a target."""
    rows = np.flatnonzero(targets.counts)
    return ndcg_at_k(lists[rows], list(targets.take(rows)), k=JUDGED_K)


def _mean(parts: Iterable[NDArray[np.float64]]) -> float:
    """Gives the mean over the users of all parts, 0 where there are none."""
    values = np.concatenate(list(parts))
    return float(values.mean()) if len(values) else 0.0
