"""How the parts of the ranking head are judged on validation users."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import EvaluationSet
from lora_rec.metrics import ndcg_at_k

JUDGED_USERS = 4000
"""So many validation users, drawn once, tell one setting from another well enough."""
JUDGED_K = 10


def draw_users(validation: EvaluationSet) -> EvaluationSet:
    """Gives at most `JUDGED_USERS` of the users, always the same."""
    if len(validation) <= JUDGED_USERS:
        return validation
    rows = np.sort(np.random.default_rng(0).choice(len(validation), JUDGED_USERS, replace=False))
    return validation.take(rows)


def mean_ndcg(lists: NDArray[np.int64], judged: EvaluationSet) -> float:
    """Gives the mean `ndcg@10` of lists (U, 10)."""
    return float(ndcg_at_k(lists, list(judged.targets), k=JUDGED_K).mean())
