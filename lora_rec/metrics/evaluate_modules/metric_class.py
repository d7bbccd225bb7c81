"""What the scripts share. Only they import this module, so only they need the library `evaluate`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike

from lora_rec.metrics.lists import flatten_lists, pad_lists
from lora_rec.metrics.report import name_of, needs_of
from lora_rec.metrics.significance import mean_over_users

_ITEMS = datasets.List(datasets.Value("int64"))
_ARRAYS = ("item_vectors", "item_counts", "item_categories")


def metric_class(function: Callable[..., Any]) -> type[evaluate.Metric]:
    """Makes the `evaluate` metric of a function of `lora_rec.metrics`.

    Args:
        function: `NAME_at_k(recommended, ..., k=...)`; its other parameters are taken from the arguments of
            `compute`, which has `references` for `relevant`.
    """
    needed, parameters = needs_of(function), inspect.signature(function).parameters
    inputs = ["predictions", "references"] if "relevant" in needed else ["predictions"]
    settings = ["k=10", *(name for name in needed if name != "relevant")]
    settings += ["alpha=0.01"] if "alpha" in parameters else []

    def info(self: evaluate.Metric) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=inspect.getdoc(function),
            citation="",
            inputs_description=f"\nInputs: {', '.join(inputs)}. Settings of compute: {', '.join(settings)}.",
            features=datasets.Features({name: _ITEMS for name in inputs}),
        )

    def compute(
        self: evaluate.Metric,
        predictions: Sequence[ArrayLike],
        references: Sequence[ArrayLike] | None = None,
        *,
        k: int = 10,
        item_vectors: ArrayLike | None = None,
        item_counts: ArrayLike | None = None,
        item_categories: ArrayLike | None = None,
        histories: Sequence[ArrayLike] | None = None,
        n_items: int | None = None,
        n_users: int | None = None,
        alpha: float = 0.01,
    ) -> dict[str, float]:
        given = {
            "relevant": references,
            "item_vectors": item_vectors,
            "item_counts": item_counts,
            "item_categories": item_categories,
            "histories": histories,
            "n_items": n_items,
            "n_users": n_users,
            "alpha": alpha,
        }
        missing = [name for name in needed if given[name] is None]
        if missing:
            raise ValueError(f"{function.__name__}: no {', '.join(missing)}; pass it to compute()")
        arguments = {name: value for name, value in given.items() if name in parameters}
        arguments |= {name: np.asarray(arguments[name]) for name in _ARRAYS if name in arguments}
        metric = f"{name_of(function)}@{k}"
        return {metric: mean_over_users(function(pad_lists(predictions, k=k), **arguments, k=k), name=metric)}

    def add_batch(
        self: evaluate.Metric, *, predictions: Any = None, references: Any = None, **given: Any
    ) -> None:
        """Adds lists, which hold whole numbers."""
        # `datasets` would cut 4.9 to 4 and read "4", so scores in place of items would go unnoticed.
        for name, lists in (("predictions", predictions), ("references", references)):
            flatten_lists([] if lists is None else lists, name=name)
        evaluate.Metric.add_batch(self, predictions=predictions, references=references, **given)

    # `evaluate` names a metric, and its cache, by the class.
    name = function.__name__.title().replace("_", "")
    methods = {"_info": info, "_compute": compute, "add_batch": add_batch, "__doc__": function.__doc__}
    return type(name, (evaluate.Metric,), methods)
