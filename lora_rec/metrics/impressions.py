"""How well shown lists are ordered."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_rec.metrics.lists import as_marks


def impression_auc(scores: ArrayLike, clicks: ArrayLike, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the pairs of a clicked and an unclicked candidate of one list that are in the right order.

    Args:
        scores: flat, one per candidate; equal scores count half.
        clicks: flat, bool or 0 and 1.
        offsets: (I + 1,); list i is `offsets[i]:offsets[i + 1]`, as in `Lists`.

    Returns:
        (I,), NaN for a list that was clicked throughout or not at all.

    Raises:
        ValueError: lengths differ, a score is not finite, or a click is neither 0 nor 1.

    >>> impression_auc(np.array([3.0, 2, 1]), np.array([False, True, False]), np.array([0, 3]))
    array([0.5])
    """
    numbers, marks = np.asarray(scores, np.float64), as_marks(clicks, name="clicks")
    if not len(numbers) == len(marks) == offsets[-1]:
        raise ValueError(
            f"scores: {len(numbers)} for {len(marks)} clicks in lists of {offsets[-1]} candidates"
        )
    if not np.isfinite(numbers).all():
        raise ValueError("scores: a value is not finite; check what made them")
    result = np.full(len(offsets) - 1, np.nan)
    for row, (start, stop) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
        given, clicked = numbers[start:stop], marks[start:stop]
        if clicked.any() and not clicked.all():
            difference = given[clicked][:, None] - given[~clicked]
            result[row] = ((difference > 0) + 0.5 * (difference == 0)).mean()
    return result
