"""What holds for a list whatever the strategy: quotas of categories, and places for exploration."""

from __future__ import annotations

import operator
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.errors import DataError
from lora_rec.rank.categories import Categories
from lora_rec.rank.search import Top, Wanted

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float32]
_Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Quotas:
    """Least and most items of some categories in a list; an item counts for each category that it has."""

    names: tuple[str, ...]
    """(Q,)"""
    member: _Mask
    """(N, Q), which items have which category."""
    least: _Ints
    """(Q,)"""
    most: _Ints
    """(Q,), at least `least`."""

    @classmethod
    def of(
        cls, quotas: Mapping[str, tuple[int | None, int | None]], categories: Categories, *, k: int
    ) -> Quotas:
        """Checks quotas.

        Args:
            quotas: category to least and most; None for no limit.
            categories: of the items.
            k: list length.

        Raises:
            DataError: a category is unknown, a quota is no pair of whole numbers with 0 <= least <= most, or
                k items cannot have so many of each.
        """
        columns = categories.find(quotas, where="quotas")
        pairs = [_check_quota(name, quota, k=k) for name, quota in quotas.items()]
        least, most = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        member = categories.weights[:, columns] > 0
        overlap = (member.sum(axis=1) > 1).any()  # one item may then count for two of them
        if (least.max(initial=0) if overlap else least.sum()) > k:
            asked = ", ".join(f"{n} of {name!r}" for name, n in zip(quotas, least, strict=True) if n)
            raise DataError(
                f"quotas: {asked} are {least.sum()} in all, and the list has {k} places; ask for fewer"
                " or set a larger k"
            )
        return cls(tuple(quotas), member, least, most)

    def check(self, candidates: _Ints) -> None:
        """Refuses candidates (U, N) of which some user's are too few for a quota.

        Raises:
            DataError: it names the category, how many are asked for and how many there are.
        """
        for column in range(len(self.names)):
            found = (self.member[candidates, column] & (candidates >= 0)).sum(axis=1)
            if len(found) and found.min() < self.least[column]:
                raise self._cannot(column, int(found.min()))

    def _cannot(self, column: int, found: int, more: str = "") -> DataError:
        return DataError(
            f"quotas: at least {self.least[column]} of {self.names[column]!r} are asked for, and there are"
            f" {found} such candidates{more}; ask for fewer, or exclude less"
        )


def _check_quota(name: str, quota: tuple[int | None, int | None], *, k: int) -> tuple[int, int]:
    try:
        least, most = quota
        least = 0 if least is None else operator.index(least)
        pair = (least, max(k, least) if most is None else operator.index(most))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"quotas: {quota!r} for {name!r} is no pair of whole numbers; give (least, most), None for no"
            " limit"
        ) from error
    if not 0 <= pair[0] <= pair[1]:
        raise DataError(f"quotas: {pair[0]} to {pair[1]} for {name!r}; give 0 <= least <= most")
    return pair


KEEPS_ROOM, LEAST_FIRST, SEVERAL_FIRST, SCARCE_FIRST = range(4)
"""How a list meets its least quotas: it keeps room for them, starts with what they ask for, starts with what
several of them ask for at once, or starts with the one that has the fewest candidates to spare, and with
those of its items that fill up no other. Each may find a list where the one before found none."""


class QuotaCount:
    """Quotas at work: which candidates each list may get next.

    Args:
        quotas: of every list.
        candidates: (U, N), items; -1 for empty slots.
        urgency: (U,), of `KEEPS_ROOM`, `LEAST_FIRST`, `SEVERAL_FIRST`, `SCARCE_FIRST`.
    """

    def __init__(self, quotas: Quotas, candidates: _Ints, *, urgency: _Ints) -> None:
        self._quotas, self._candidates, self._urgency = quotas, candidates, urgency
        self._member = quotas.member[candidates] & (candidates >= 0)[:, :, None]  # (U, N, Q)
        self._counts = np.zeros((len(candidates), len(quotas.names)), dtype=np.int64)
        self._taken = candidates < 0

    @property
    def missing(self) -> _Ints:
        """(U, Q), how many each list still needs."""
        return np.maximum(self._quotas.least - self._counts, 0)

    def blocked(self, *, places_left: _Ints) -> _Mask:
        """Gives the candidates (U, N) that would break a quota, or take a place that one needs.

        Args:
            places_left: (U,), the next place and all after it.
        """
        full = self._counts >= self._quotas.most
        blocked = (self._member & full[:, None, :]).any(axis=2)
        missing = self.missing
        needed = missing.sum(axis=1)
        tight = (needed > 0) & ((needed >= places_left) | (self._urgency >= LEAST_FIRST))
        n_helped = (self._member & (missing > 0)[:, None, :]).sum(axis=2)
        most = np.where(blocked | self._taken, 0, n_helped).max(axis=1, initial=0)
        wanted = np.where(self._urgency == SEVERAL_FIRST, np.maximum(most, 1), 1)
        blocked |= tight[:, None] & (n_helped < wanted[:, None])
        for row in np.flatnonzero(tight & (self._urgency == SCARCE_FIRST)):
            blocked[row] |= ~self._scarce(int(row), ~blocked[row] & ~self._taken[row])
        return blocked

    def _scarce(self, row: int, free: _Mask) -> _Mask:
        """Gives, of the free candidates (N,) of one list, those that it should start with."""
        missing, member = self.missing[row], self._member[row]
        spare = np.where(missing > 0, (member & free[:, None]).sum(axis=0) - missing, np.iinfo(np.int64).max)
        useful = free & member[:, int(spare.argmin())]
        fills = (member & (missing == 0) & (self._quotas.most < member.shape[0])).sum(axis=1)
        return useful & (fills == fills[useful].min(initial=member.shape[1]))

    def take(self, taken: _Ints, found: _Mask) -> None:
        """Counts the candidate (U,) that each list got, where it got one."""
        users = np.arange(len(taken))
        self._counts += self._member[users, taken] & found[:, None]
        self._taken[users[found], taken[found]] = True

    def check(self) -> None:
        """Refuses finished lists that lack something.

        Raises:
            DataError: the first category that a list lacks.
        """
        rows, columns = np.nonzero(self.missing)
        if len(rows):
            found = int(self._member[rows[0], :, columns[0]].sum())
            raise self._quotas._cannot(
                columns[0], found, ", and no list was found that has room for them beside the other quotas"
            )


RELATIVE_CANDIDATES = 10
"""Re-ranking sees at least so many times the list, wherever it is measured or served."""


def count_candidates(n_candidates: int, *, k: int) -> int:
    """Gives how many of the best re-ranking looks at.

    >>> count_candidates(100, k=10), count_candidates(100, k=20)
    (100, 200)
    """
    return max(n_candidates, RELATIVE_CANDIDATES * k)


def gather_candidates(
    best: Callable[[Sequence[Wanted]], list[Top]],
    *,
    n_candidates: int,
    k: int,
    allowed: _Mask | None,
    quotas: Quotas | None,
) -> tuple[_Ints, _Floats]:
    """Gives candidates by relevance among which quotas can be met, where the catalogue can meet them.

    Beside the best of all, these are the best of each category with a quota, as many as it asks for or
    admits, those of them that no other quota caps, and the best k that no quota keeps out. What a quota
    forbids is no candidate at all.

    Args:
        best: gives several lists of each user; see `search.tops_of`.
        n_candidates: how many of the best.
        k: list length.
        allowed: (N,), the items there are; all when left out.
        quotas: of the list.
    """
    if quotas is not None and (forbidden := quotas.most == 0).any():
        rest: _Mask = ~np.any(quotas.member[:, forbidden], axis=1)
        allowed = rest if allowed is None else np.logical_and(rest, allowed)
    wanted: list[Wanted] = [(n_candidates, allowed)]
    # Where all items are candidates anyway, nothing is missing among them.
    if quotas is not None and n_candidates <= len(quotas.member):
        capped = quotas.most < k
        alone = [
            own & ~quotas.member[:, _without(capped, place)].any(axis=1)
            for place, own in enumerate(quotas.member.T)
        ]
        masks = [*quotas.member.T, *alone, ~quotas.member[:, capped].any(axis=1)]
        lengths = [*np.where(capped, quotas.most, quotas.least), *quotas.least, k]
        wanted += [
            (int(n), mask if allowed is None else mask & allowed)
            for mask, n in zip(masks, lengths, strict=True)
            if n > 0
        ]
    pools = best(wanted)
    if len(pools) == 1:
        return pools[0]
    items, scores = (np.concatenate(parts, axis=1) for parts in zip(*pools, strict=True))
    order = np.lexsort((items, -scores), axis=1)
    items, scores = np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)
    again = np.zeros(items.shape, dtype=bool)
    again[:, 1:] = items[:, 1:] == items[:, :-1]
    items, scores = np.where(again, -1, items), np.where(again, -np.inf, scores).astype(np.float32)
    order = np.argsort(items < 0, axis=1, kind="stable")
    return np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _without(mask: _Mask, place: int) -> _Mask:
    """Gives a mask without one of its places."""
    return mask & (np.arange(len(mask)) != place)


def explore_below(
    places: _Ints, candidates: _Ints, *, share: float, seed: int, quotas: Quotas | None = None
) -> _Ints:
    """Gives a share of the places to candidates drawn from below the list, never the first place.

    A user's draw depends on the seed and on that user's candidates alone, not on who else is asked for.

    Args:
        places: (U, K), which of the candidates is at which place; -1 where a list ends early.
        candidates: (U, N), items; -1 for empty slots at the end.
        share: of the list's places, within 0..1, rounded.
        seed: of the draw.
        quotas: hold afterwards as they did before; where no candidate fits, a place stays as it was.
    """
    result = places.copy()
    for row in range(len(places) if share > 0 else 0):
        chosen = result[row, result[row] >= 0]
        n_places = min(int(share * len(chosen) + 0.5), len(chosen) - 1)
        items = candidates[row, candidates[row] >= 0]
        below = np.setdiff1d(np.arange(len(items)), chosen)
        if n_places < 1 or not len(below):
            continue
        generator = np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(items).tobytes())])
        where = generator.permutation(np.arange(1, len(chosen)))[:n_places]
        drawn = list(generator.permutation(below))
        for place in where:
            fitting = _first_that_fits(drawn, items, chosen, place, quotas)
            if fitting is not None:
                chosen[place] = drawn.pop(fitting)
        result[row, : len(chosen)] = chosen
    return result


def _first_that_fits(
    drawn: list[int], items: _Ints, chosen: _Ints, place: int, quotas: Quotas | None
) -> int | None:
    if quotas is None:
        return 0 if drawn else None
    counts = quotas.member[items[np.delete(chosen, place)]].sum(axis=0)
    after = counts + quotas.member[items[drawn]]
    fits = ((after >= quotas.least) & (after <= quotas.most)).all(axis=1)
    return int(np.argmax(fits)) if fits.any() else None
