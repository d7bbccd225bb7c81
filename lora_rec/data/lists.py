"""Many arrays of different lengths in one, and the checks that they share with the other holders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_rec.errors import DataError


def checked(where: str, values: Any, *, dtype: type, kinds: str, length: int | None = None) -> NDArray[Any]:
    """Gives `values` as a flat array of `dtype`, or says what it is instead."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{where}: an array of shape {array.shape}; give one dimension")
    if array.size and array.dtype.kind not in kinds:
        raise DataError(f"{where}: values of type {array.dtype}; give {np.dtype(dtype).name}")
    if length is not None and len(array) != length:
        raise DataError(f"{where}: {len(array)} values where {length} are needed; give one per entry")
    return array.astype(dtype, copy=False)


def check_range(where: str, values: NDArray[np.int64], *, n: int) -> None:
    """Refuses an internal id outside 0..n-1."""
    if values.size and (values.min() < 0 or values.max() >= n):
        bad = values[(values < 0) | (values >= n)][0]
        raise DataError(f"{where}: id {bad} is outside 0..{n - 1}; use the internal ids of this data set")


def check_order(where: str, users: NDArray[np.int64], times: NDArray[np.int64] | None) -> None:
    """Refuses interactions that are not sorted by user, then time."""
    step = np.diff(users)
    wrong = step < 0
    if times is not None:
        wrong |= (step == 0) & (np.diff(times) < 0)
    if wrong.any():
        row = int(np.argmax(wrong)) + 1
        raise DataError(f"{where}: row {row} comes before row {row - 1}; sort by user, then time")


def set_fields(instance: object, **values: Any) -> None:
    """Stores checked values in a frozen dataclass that is being built."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


@dataclass(frozen=True, eq=False)
class Lists:
    """Many integer arrays of different lengths in one.

    >>> lists = Lists.from_arrays([[3, 1], [], [2]])
    >>> len(lists), lists[0].tolist(), lists.counts.tolist()
    (3, [3, 1], [2, 0, 1])
    """

    values: NDArray[np.int64]
    """All arrays, one after the other."""
    offsets: NDArray[np.int64]
    """(n + 1,); array i is `values[offsets[i]:offsets[i + 1]]`."""
    strengths: NDArray[np.float32] | None = None
    """One per value, above 0: how often the user took the item (plays, purchases); None counts all alike."""

    def __post_init__(self) -> None:
        values = checked("lists.values", self.values, dtype=np.int64, kinds="iu")
        offsets = checked("lists.offsets", self.offsets, dtype=np.int64, kinds="iu")
        if (
            not offsets.size
            or offsets[0] != 0
            or offsets[-1] != len(values)
            or (offsets[1:] < offsets[:-1]).any()
        ):
            raise DataError(
                f"lists.offsets: {offsets[:5].tolist()}... do not cut {len(values)} values into arrays; "
                f"start at 0, never decrease, and end at {len(values)}"
            )
        strengths = self.strengths
        if strengths is not None:
            strengths = checked(
                "lists.strengths", strengths, dtype=np.float32, kinds="iuf", length=len(values)
            )
            if not (np.isfinite(strengths).all() and (strengths > 0).all()):
                bad = strengths[~(np.isfinite(strengths) & (strengths > 0))][0]
                raise DataError(f"lists.strengths: {bad} is not a number above 0; leave such a row out")
        set_fields(self, values=values, offsets=offsets, strengths=strengths)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"list {index} of {len(self)}")
        index %= len(self)
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return (self[i] for i in range(len(self)))

    @property
    def counts(self) -> NDArray[np.int64]:
        """(n,), the length of each array."""
        return np.diff(self.offsets)

    def take(self, indices: ArrayLike) -> Lists:
        """Gives the chosen arrays in the order asked for.

        >>> [a.tolist() for a in Lists.from_arrays([[3, 1], [], [2]]).take([2, 0])]
        [[2], [3, 1]]
        """
        chosen = checked("lists.take", indices, dtype=np.int64, kinds="iu")
        check_range("lists.take", chosen, n=len(self))
        offsets = np.concatenate([[0], np.cumsum(self.counts[chosen])]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], np.diff(offsets))
        strengths = None if self.strengths is None else self.strengths[places]
        return Lists(self.values[places], offsets, strengths)

    def keep(self, kept: NDArray[np.bool_]) -> Lists:
        """Leaves out the values that are not kept, by a mask over all values there may be.

        >>> Lists.from_arrays([[0, 1], [1]]).keep(np.array([True, False])).counts.tolist()
        [1, 0]
        """
        mask = kept[self.values]
        offsets = np.concatenate([[0], np.cumsum(mask)])[self.offsets]
        strengths = None if self.strengths is None else self.strengths[mask]
        return Lists(self.values[mask], offsets, strengths)

    def repeats(self) -> NDArray[np.bool_]:
        """Gives, for each value, whether its array holds it before.

        >>> Lists.from_arrays([[7, 8, 7], [7, 7]]).repeats().tolist()
        [False, False, True, False, True]
        """
        owners = np.repeat(np.arange(len(self)), self.counts)
        order = np.lexsort((np.arange(len(owners)), self.values, owners))
        again = (np.diff(owners[order]) == 0) & (np.diff(self.values[order]) == 0)
        result = np.zeros(len(owners), dtype=bool)
        result[order[1:][again]] = True
        return result

    def without_repeats(self) -> Lists:
        """Keeps the first of equal values in each array.

        >>> Lists.from_arrays([[7, 8, 7], [7, 7]]).without_repeats().offsets.tolist()
        [0, 2, 3]
        """
        first = ~self.repeats()
        offsets = np.concatenate([[0], np.cumsum(first)])[self.offsets]
        strengths = None if self.strengths is None else self.strengths[first]
        return Lists(self.values[first], offsets, strengths)

    def relative_strengths(self) -> NDArray[np.float32]:
        """Gives log(1 + strength) of each value over its mean within the array; 1 without strengths.

        Plays are spread over orders of magnitude, of which the logarithm keeps the order and little more, and
        a user who plays much counts no more than another.

        >>> lists = Lists(np.array([4, 5, 6]), np.array([0, 2, 3]), np.array([1.0, 3.0, 9.0]))
        >>> (3 * lists.relative_strengths()).round().tolist()
        [2.0, 4.0, 3.0]
        """
        if self.strengths is None:
            return np.ones(len(self.values), dtype=np.float32)
        logs = np.log1p(self.strengths)
        owners = np.repeat(np.arange(len(self)), self.counts)
        means = np.bincount(owners, weights=logs, minlength=len(self)) / np.maximum(self.counts, 1)
        return (logs / means[owners]).astype(np.float32)

    @classmethod
    def from_arrays(cls, arrays: Iterable[ArrayLike], strengths: Iterable[ArrayLike] | None = None) -> Lists:
        """Joins the arrays, and their strengths, in their order."""
        parts = [checked("lists", a, dtype=np.int64, kinds="iu") for a in arrays]
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
        joined = None
        if strengths is not None:
            given = [checked("lists.strengths", a, dtype=np.float32, kinds="iuf") for a in strengths]
            if [len(g) for g in given] != [len(p) for p in parts]:
                raise DataError("lists.strengths: not one per value of each list; give as many as it has")
            joined = np.concatenate([np.empty(0, np.float32), *given])
        return cls(np.concatenate([np.empty(0, np.int64), *parts]), offsets, joined)

    @classmethod
    def from_groups(
        cls,
        groups: NDArray[np.int64],
        values: NDArray[np.int64],
        *,
        n_groups: int,
        strengths: NDArray[np.float32] | None = None,
    ) -> Lists:
        """Cuts values whose group numbers never decrease; a group without values is an empty array.

        >>> Lists.from_groups(np.array([0, 0, 2]), np.array([5, 6, 7]), n_groups=3).offsets.tolist()
        [0, 2, 2, 3]
        """
        check_range("lists.groups", groups, n=n_groups)
        check_order("lists.groups", groups, None)
        counts = np.bincount(groups, minlength=n_groups)
        return cls(values, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), strengths)
