"""All metrics of a set of lists at once, with intervals, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_rec.metrics.diversity import coverage_at_k, ild_at_k, novelty_at_k
from lora_rec.metrics.relevance import hit_rate_at_k, mrr_at_k, ndcg_at_k, recall_at_k


@dataclass(frozen=True)
class PairedDifference:
    """How far one system is from another on the same users."""

    mean: float
    """Mean of a - b; above 0 where the first system is better."""
    low: float
    """Lower end of the bootstrap interval of the mean."""
    high: float
    """Upper end."""
    n: int
    """Number of users with a value in both."""


def evaluate_lists(
    recommended: NDArray[np.integer[Any]],
    relevant: Sequence[ArrayLike],
    *,
    item_vectors: NDArray[np.floating[Any]],
    item_counts: NDArray[np.integer[Any]],
    n_users: int,
    k: int = 10,
) -> dict[str, float]:
    """Gives every metric of the lists, as means over the users that have a value.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        relevant: U sequences of item indices; a user without one is left out of the four relevance metrics.
        item_vectors: (n_items, D), what `ild` compares; its length is the size of the catalogue.
        item_counts: (n_items,), number of distinct training users of each item.
        n_users: number of training users, which `novelty` divides the counts by.
        k: at least 1, at most K.

    Returns:
        `recall@k`, `ndcg@k`, `mrr@k`, `hit_rate@k`, `ild@k`, `coverage@k` and `novelty@k`, with the
        number for k.

    Raises:
        ValueError: as in the single metrics, or no user has a value for one of them.

    >>> counts = np.array([3, 0, 1, 1])
    >>> lists = np.array([[0, 1]])
    >>> scores = evaluate_lists(lists, [[1]], item_vectors=np.eye(4), item_counts=counts, n_users=3, k=2)
    >>> scores["recall@2"], scores["mrr@2"], scores["ild@2"], scores["coverage@2"], scores["novelty@2"]
    (1.0, 0.5, 1.0, 0.5, 1.0)
    """
    values: dict[str, ArrayLike] = {
        "recall": recall_at_k(recommended, relevant, k=k),
        "ndcg": ndcg_at_k(recommended, relevant, k=k),
        "mrr": mrr_at_k(recommended, relevant, k=k),
        "hit_rate": hit_rate_at_k(recommended, relevant, k=k),
        "ild": ild_at_k(recommended, item_vectors, k=k),
        "coverage": coverage_at_k(recommended, k=k, n_items=len(item_vectors)),
        "novelty": novelty_at_k(recommended, item_counts, k=k, n_users=n_users),
    }
    return {f"{name}@{k}": mean_over_users(value, name=f"{name}@{k}") for name, value in values.items()}


def mean_over_users(values: ArrayLike, *, name: str) -> float:
    """Gives the mean of the values that are not NaN.

    Raises:
        ValueError: there is none; `name` is in the text.

    >>> mean_over_users([1.0, float("nan"), 0.0], name="recall@10")
    0.5
    """
    return float(_without_nan(values, name=name).mean())


def bootstrap_interval(
    values: ArrayLike, *, level: float = 0.95, n_resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Gives the percentile bootstrap interval of the mean over users.

    Args:
        values: (U,), one value per user; NaN is left out.
        level: share of the resampled means inside the interval, within (0, 1).
        n_resamples: how often U users are drawn with replacement.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: no value that is not NaN, `level` outside (0, 1), or `n_resamples` below 1.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 13.3.

    >>> bootstrap_interval([0.25, 0.25, 0.25])
    (0.25, 0.25)
    """
    if not 0 < level < 1:
        raise ValueError(f"level: {level} is not within (0, 1); 0.95 is usual")
    if n_resamples < 1:
        raise ValueError(f"n_resamples: {n_resamples} is below 1; 1000 is usual")
    kept = _without_nan(values, name="values")
    rng = np.random.default_rng(seed)
    means = [kept[rng.integers(len(kept), size=len(kept))].mean() for _ in range(n_resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, level: float = 0.95, n_resamples: int = 1000, seed: int = 0
) -> PairedDifference:
    """Compares two systems on the same users: the mean of a - b with its bootstrap interval.

    Args:
        a: (U,), one value per user of the first system.
        b: (U,), of the second, in the same order of users; a user with NaN in either is left out.
        level: as in `bootstrap_interval`.
        n_resamples: as in `bootstrap_interval`.
        seed: as in `bootstrap_interval`.

    Raises:
        ValueError: the shapes differ, or as in `bootstrap_interval`.

    >>> paired_difference([0.75, 0.5, 1.0], [0.5, 0.25, 0.75])
    PairedDifference(mean=0.25, low=0.25, high=0.25, n=3)
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(
            f"a and b: shapes {first.shape} and {second.shape} differ; give the same users to both"
        )
    kept = _without_nan(first - second, name="a - b")
    low, high = bootstrap_interval(kept, level=level, n_resamples=n_resamples, seed=seed)
    return PairedDifference(mean=float(kept.mean()), low=low, high=high, n=len(kept))


def format_table(
    rows: Mapping[str, Mapping[str, float]], *, columns: Sequence[str], title_column: str = "system"
) -> str:
    """Writes the results of several systems as an aligned Markdown table with four decimals.

    Args:
        rows: values by metric, by the name of the system; a row may hold more metrics than are shown.
        columns: the metrics to show, in order.
        title_column: heading of the first column.

    Raises:
        ValueError: a row lacks one of the columns.

    >>> print(format_table({"ours": {"ndcg@10": 0.25}, "popular": {"ndcg@10": 0.125}}, columns=["ndcg@10"]))
    | system  | ndcg@10 |
    | :------ | ------: |
    | ours    |  0.2500 |
    | popular |  0.1250 |
    """
    for title, row in rows.items():
        missing = [column for column in columns if column not in row]
        if missing:
            raise ValueError(f"rows[{title!r}]: no {', '.join(missing)}; it has {', '.join(row)}")
    cells = [[title, *(f"{row[column]:.4f}" for column in columns)] for title, row in rows.items()]
    header = [title_column, *columns]
    widths = [max(3, *map(len, column)) for column in zip(header, *cells, strict=True)]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for first, *others in [header, rule, *cells]:
        padded = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)


def _without_nan(values: ArrayLike, *, name: str) -> NDArray[np.float64]:
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if array.ndim != 1:
        raise ValueError(f"{name}: shape {array.shape} is not (U,); give one value per user")
    kept = array[~np.isnan(array)]
    if not len(kept):
        raise ValueError(f"{name}: none of {len(array)} users has a value; give lists and relevant items")
    return kept
