"""How much a score says: the chance that an item is the one to be taken, comparable between users.

Re-ranking gives up relevance for diversity. Where every user's scores are scaled to 0..1 it gives up as much
of a list that is sure to be right as of one that is a guess, and as much between the first two candidates as
between the last two. Chances say where relevance is, so it is kept there and diversity is bought where it
costs little: on MovieLens-100K's validation users, at 95 % of the `ndcg@10`, the sum of distances buys .06
more `ild` and .1 more coverage, and `novel` .2 more coverage, than with scores scaled for each user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.schema import RankingManifest

_Floats = NDArray[np.float32]
_STEEPNESS = 2.0 ** np.arange(-2, 8.01, 0.25)
"""In units of one over the median range of a user's scores."""


@dataclass(frozen=True)
class Chances:
    """Turns scores into chances: their softmax over a user's candidates, scores times the steepness."""

    steepness: float
    typical: float
    """Chance of the best candidate of a typical user, which has relevance 1."""

    @classmethod
    def of(cls, ranking: RankingManifest) -> Chances | None:
        """Gives those of a bundle, if it has some."""
        if ranking.steepness is None or ranking.typical_chance is None:
            return None
        return cls(ranking.steepness, ranking.typical_chance)

    def relevance(self, scores: _Floats, present: NDArray[np.bool_]) -> _Floats:
        """Gives (U, N), the square root of chance over `typical`, and 0 for what is not present.

        Chances themselves leave next to nothing to the tenth place of a list; their square roots traded best
        of the powers that were tried (1, 3/4, 1/2, 1/4; MovieLens-100K and Online Retail, validation).

        Args:
            scores: (U, N), of the candidates.
            present: (U, N).

        >>> chances = Chances(steepness=np.log(4), typical=0.8)
        >>> chances.relevance(np.array([[2, 1, 0]], "f4"), np.array([[True, True, False]])).round(3).tolist()
        [[1.0, 0.5, 0.0]]
        """
        logs = _log_chances(scores * np.float32(self.steepness), present)
        return np.exp((logs - np.float32(np.log(self.typical))) / 2).astype(np.float32)


def fit_chances(candidates: NDArray[np.int64], scores: _Floats, targets: Lists) -> Chances | None:
    """Finds the steepness that makes what was taken most likely, on validation users.

    Args:
        candidates: (U, N), best first; -1 where a list ends early.
        scores: (U, N).
        targets: items that each of the U users took.

    Returns:
        None where scores tell nothing: no target is among the candidates, or all scores are equal.
    """
    present = candidates >= 0
    hits = np.zeros(candidates.shape, dtype=bool)
    for user, taken in enumerate(targets):
        hits[user] = np.isin(candidates[user], taken) & present[user]
    highest = np.max(scores, axis=1, initial=-np.inf, where=present)
    lowest = np.min(scores, axis=1, initial=np.inf, where=present)
    spread = float(np.median((highest - lowest)[present.any(axis=1)])) if present.any() else 0.0
    if not hits.any() or spread <= 0:
        return None

    def likelihood(steepness: float) -> float:
        return float(_log_chances(scores * np.float32(steepness), present)[hits].mean(dtype=np.float64))

    steepness = max((float(value) / spread for value in _STEEPNESS), key=likelihood)
    logs = _log_chances(scores * np.float32(steepness), present)
    best = logs.max(axis=1, initial=-np.inf)[present.any(axis=1)]
    return Chances(steepness, float(np.exp(np.median(best))))


def _log_chances(scaled: _Floats, present: NDArray[np.bool_]) -> _Floats:
    """Gives (U, N), the log-softmax over what is present, and -inf for the rest."""
    logs = np.where(present, scaled, np.float32(-np.inf))
    logs -= np.max(logs, axis=1, keepdims=True, initial=np.finfo(np.float32).min)
    total = np.exp(logs).sum(axis=1, keepdims=True)
    logs -= np.log(np.maximum(total, 1))  # what is best adds 1, so only a user without candidates has less
    return logs
