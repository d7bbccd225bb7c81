"""How sure a comparison is: intervals over the test users, paired tests, and parts of the users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.metrics import (
    bootstrap_interval,
    holm_adjusted,
    ild_at_k,
    ndcg_at_k,
    paired_difference,
    recall_at_k,
    sign_flip_test,
)
from lora_rec.pipeline.ranking import Comparison
from lora_rec.pipeline.slices import slice_users
from lora_rec.rank.categories import Categories

PAIRS = (
    ("trained_towers", "frozen_towers"),
    ("ranking_head", "popularity"),
    ("ranking_head", "item_cosine"),
    ("ranking_head", "ease"),
    ("ranking_head", "trained_towers"),
    ("ranking_head_diverse", "ranking_head"),
)
"""A system, and what it is tested against."""


@dataclass(frozen=True)
class PairedTest:
    """One metric of two systems on the same users."""

    system: str
    other: str
    metric: str
    mean: float
    """Of the system less the other."""
    low: float
    """Lower end of the bootstrap interval, 95 %."""
    high: float
    n: int
    """Users with a value of both."""
    p_value: float
    """Of a sign-flip test, corrected by Holm for all the tests of this metric."""

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves out 0 and the test rejects at 5 %."""
        return (self.low > 0 or self.high < 0) and self.p_value < 0.05


def collect_evidence(comparison: Comparison, *, categories: Categories | None) -> dict[str, Any]:
    """Gives, as plain dictionaries, the means' intervals, the tests of `PAIRS`, and the slices."""
    slices = slice_users(comparison.lists, comparison.split, k=comparison.k, categories=categories)
    return {
        "intervals": intervals_of(comparison),
        "tests": [asdict(test) for test in compare_pairs(comparison, PAIRS)],
        "slices": [part.to_json() for part in slices],
    }


def intervals_of(comparison: Comparison) -> dict[str, dict[str, tuple[float, float]]]:
    """Gives the 95 % bootstrap interval over users of each system's metrics that are means over users."""
    return {
        system: {
            metric: bootstrap_interval(values) for metric, values in of_users(comparison, system).items()
        }
        for system in comparison.lists
    }


def compare_pairs(
    comparison: Comparison, pairs: Sequence[tuple[str, str]], *, n_others: int = 0
) -> list[PairedTest]:
    """Tests pairs of systems that were both compared, on relevance and on variety.

    Args:
        comparison: of the systems.
        pairs: a system, and what it is tested against.
        n_others: tests of each metric that stand beside these and were corrected without them; each of ours
            then counts as one of so many more (Bonferroni).
    """
    there = [pair for pair in pairs if all(system in comparison.lists for system in pair)]
    values = {system: of_users(comparison, system) for pair in there for system in pair}
    tests = []
    for metric in (f"ndcg@{comparison.k}", f"ild_factors@{comparison.k}"):
        both = [(values[system][metric], values[other][metric]) for system, other in there]
        p_values = holm_adjusted([sign_flip_test(a, b) for a, b in both])
        p_values = np.minimum(1, p_values * (len(both) + n_others) / max(1, len(both)))
        for (system, other), (a, b), p_value in zip(there, both, p_values, strict=True):
            found = paired_difference(a, b)
            tests.append(PairedTest(system, other, metric, **asdict(found), p_value=float(p_value)))
    return tests


def of_users(comparison: Comparison, system: str) -> dict[str, NDArray[np.float64]]:
    """Gives a system's metrics of each test user, (U,)."""
    lists, k = comparison.lists[system], comparison.k
    targets = list(comparison.split.test.targets)
    by_text = {} if comparison.ruler is None else {f"ild@{k}": ild_at_k(lists, comparison.ruler, k=k)}
    return by_text | {
        f"ndcg@{k}": ndcg_at_k(lists, targets, k=k),
        f"recall@{k}": recall_at_k(lists, targets, k=k),
        f"ild_factors@{k}": ild_at_k(lists, comparison.factors, k=k),
    }
