"""Chances that something is so: whether they mean what they say, and whether they tell it from the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lora_rec.metrics.lists import as_marks


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, *, n_bins: int = 15) -> float:
    """How far chances are from what happened: mean over bins of |chance - share|, by the bins' sizes.

    Args:
        probabilities: (P,), within [0, 1].
        labels: (P,) bool or 0 and 1, what happened.
        n_bins: of equal width.

    Raises:
        ValueError: lengths differ, there are none, a chance is outside [0, 1], or a label is neither 0 nor 1.

    Source: Guo et al. 2017, "On calibration of modern neural networks", arXiv 1706.04599, eq. 3.

    >>> round(expected_calibration_error([0.9, 0.9, 0.1], [True, False, False], n_bins=2), 6)
    0.3
    """
    chances, happened = np.asarray(probabilities, np.float64), as_marks(labels, name="labels")
    if n_bins < 1:
        raise ValueError(f"n_bins: {n_bins} is below 1; 15 is usual")
    if chances.shape != happened.shape or chances.ndim != 1 or not len(chances):
        raise ValueError(
            f"probabilities {chances.shape} and labels {happened.shape}: give as many, at least 1"
        )
    if not ((chances >= 0) & (chances <= 1)).all():
        raise ValueError("probabilities: one is outside [0, 1]")
    bins = np.maximum(np.ceil(chances * n_bins).astype(np.int64) - 1, 0)  # as published, closed above
    gaps = np.bincount(bins, weights=chances - happened, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(chances))


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Chance that what is so is scored above what is not; ties count half. NaN where one side is missing.

    For many pairs; `impression_auc` is for many short lists.

    Args:
        scores: (P,)
        labels: (P,) bool or 0 and 1.

    Raises:
        ValueError: lengths differ, a score is NaN, or a label is neither 0 nor 1.

    >>> auc([3, 2, 2, 1], [True, True, False, False])
    0.875
    """
    values, positive = np.asarray(scores, np.float64), as_marks(labels, name="labels")
    if values.shape != positive.shape or np.isnan(values).any():
        raise ValueError(f"scores {values.shape} and labels {positive.shape}: give as many, and no NaN")
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
