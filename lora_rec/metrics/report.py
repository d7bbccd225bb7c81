"""All metrics of a set of lists at once, and as a table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_rec.metrics.catalogue import (
    coverage_at_k,
    exposure_entropy_at_k,
    gini_at_k,
    personalization_at_k,
)
from lora_rec.metrics.categories import (
    calibration_error_at_k,
    category_coverage_at_k,
    category_entropy_at_k,
    category_ild_at_k,
)
from lora_rec.metrics.diversity import ild_at_k, ild_min_at_k
from lora_rec.metrics.popularity import (
    new_items_at_k,
    novelty_at_k,
    popularity_at_k,
    popularity_lift_at_k,
    serendipity_at_k,
)
from lora_rec.metrics.relevance import hit_rate_at_k, mrr_at_k, ndcg_at_k, recall_at_k
from lora_rec.metrics.significance import mean_over_users

METRICS: tuple[Callable[..., Any], ...] = (
    recall_at_k,
    ndcg_at_k,
    mrr_at_k,
    hit_rate_at_k,
    ild_at_k,
    coverage_at_k,
    novelty_at_k,
    ild_min_at_k,
    category_ild_at_k,
    category_entropy_at_k,
    category_coverage_at_k,
    calibration_error_at_k,
    gini_at_k,
    exposure_entropy_at_k,
    personalization_at_k,
    popularity_at_k,
    popularity_lift_at_k,
    new_items_at_k,
    serendipity_at_k,
)
"""All of them, called `NAME_at_k`, in the order of the report."""


def evaluate_lists(
    recommended: NDArray[np.integer[Any]],
    relevant: Sequence[ArrayLike],
    *,
    item_vectors: NDArray[np.floating[Any]] | None = None,
    item_counts: NDArray[np.integer[Any]] | None = None,
    n_users: int | None = None,
    item_categories: NDArray[Any] | None = None,
    histories: Sequence[ArrayLike] | None = None,
    k: int = 10,
) -> dict[str, float]:
    """Gives every metric of the lists, as means over the users that have a value.

    A metric is left out where what it needs is not given.

    Args:
        recommended: (U, K), item indices, best first; -1 is an empty slot, only at the end of a list.
        relevant: U sequences of item indices; a user without one is left out of what judges relevance.
        item_vectors: (n_items, D), what `ild` and `ild_min` compare.
        item_counts: (n_items,), number of distinct training users of each item; for `popularity`, `new_items`
            and `serendipity`.
        n_users: number of training users; with the counts for `novelty`.
        item_categories: (n_items, C), weights as in `category_ild_at_k`; for `category_ild`,
            `category_entropy` and `category_coverage`.
        histories: U sequences of the items that each user took before; with the counts for
            `popularity_lift`, with the categories for `calibration_error`.
        k: at least 1, at most K.

    Returns:
        `recall@k`, `ndcg@k`, `mrr@k`, `hit_rate@k` and `personalization@k`, with the number for k; where
        anything about the items tells how many there are, `coverage@k`, `gini@k` and `exposure_entropy@k`;
        and those above.

    Raises:
        ValueError: as in the single metrics, inputs about different numbers of items, or no user has a value
            for one of the metrics.

    >>> counts = np.array([3, 0, 1, 1])
    >>> lists = np.array([[0, 1]])
    >>> scores = evaluate_lists(lists, [[1]], item_vectors=np.eye(4), item_counts=counts, n_users=3, k=2)
    >>> scores["recall@2"], scores["mrr@2"], scores["ild@2"], scores["coverage@2"], scores["novelty@2"]
    (1.0, 0.5, 1.0, 0.5, 1.0)
    >>> sorted(evaluate_lists(lists, [[1]], k=2))
    ['hit_rate@2', 'mrr@2', 'ndcg@2', 'personalization@2', 'recall@2']
    """
    by_item = {"item_vectors": item_vectors, "item_counts": item_counts, "item_categories": item_categories}
    sizes = {name: len(array) for name, array in by_item.items() if array is not None}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"numbers of items: {sizes} differ; give all of them for the whole catalogue")
    given: dict[str, Any] = {
        "relevant": relevant,
        "n_items": next(iter(sizes.values()), None),
        "n_users": n_users,
        "histories": histories,
        **by_item,
    }
    scores = {}
    for metric in METRICS:
        inputs = {name: given[name] for name in needs_of(metric)}
        if all(value is not None for value in inputs.values()):
            name = f"{name_of(metric)}@{k}"
            scores[name] = mean_over_users(metric(recommended, **inputs, k=k), name=name)
    return scores


def name_of(metric: Callable[..., Any]) -> str:
    """Gives what a metric is called in a report.

    >>> name_of(ndcg_at_k)
    'ndcg'
    """
    return metric.__name__.removesuffix("_at_k")


def needs_of(metric: Callable[..., Any]) -> list[str]:
    """Gives the names of what a metric must be given beside the lists and `k`.

    >>> needs_of(calibration_error_at_k)
    ['item_categories', 'histories']
    """
    parameters = inspect.signature(metric).parameters.values()
    required = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    return [name for name in required if name not in ("recommended", "k")]


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
