"""Chances that a user likes an item, from both towers: judged, and made honest on validation data."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lora_rec.data.dataset import Dataset, EvaluationSet, Log
from lora_rec.data.labels import likes
from lora_rec.metrics import auc, expected_calibration_error
from lora_rec.objectives_section import ObjectivesSection
from lora_rec.rank.interest import InterestModel
from lora_rec.towers.two_tower import TwoTower
from lora_rec.train.objectives.labels import interest_logits

logger = logging.getLogger(__name__)

_Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """P pairs of a user text and an item."""

    texts: NDArray[np.int64]
    items: NDArray[np.int64]
    liked: NDArray[np.bool_]


@dataclass(frozen=True)
class Calibration:
    """A map from log-odds to honest ones: their sum with `offset`, after a factor `slope`."""

    slope: float
    offset: float

    def chances(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Gives chances in [0, 1].

        >>> Calibration(slope=2.0, offset=0.0).chances(np.array([0.0])).tolist()
        [0.5]
        """
        return np.asarray(1 / (1 + np.exp(-(self.slope * np.asarray(logits, np.float64) + self.offset))))

    def model(self, weights: torch.Tensor, bias: torch.Tensor, *, temperature: float) -> InterestModel:
        """Gives the calibrated model of what the objective learned; see `interest_logits`."""
        match, user, item = (self.slope * weights).numpy()
        return InterestModel(match / temperature, user, item, self.slope * float(bias) + self.offset)


def pairs_of(
    rated: Dataset | Log,
    evaluation: EvaluationSet,
    texts: NDArray[np.int64],
    section: ObjectivesSection,
    *,
    n_items: int,
) -> LabelledPairs:
    """Gives what users took next with whether they liked it, or, without ratings, with as many random items.

    Args:
        rated: interactions up to the end of this part, perhaps with ratings.
        evaluation: users and what they took.
        texts: (U,), which user text is that of each.
        section: says from which rating on an item is liked.
        n_items: N.
    """
    users = np.repeat(np.arange(len(evaluation)), evaluation.targets.counts)
    items = evaluation.targets.values
    if rated.ratings is not None:
        liked = likes(
            rated, evaluation.users, evaluation.targets, n_items=n_items, liked_from=section.liked_from
        )
        return LabelledPairs(texts[users], items, liked)
    others = np.random.default_rng(0).integers(n_items, size=len(items))
    taken = [
        (set(h.tolist()) | set(t.tolist()))
        for h, t in zip(evaluation.histories, evaluation.targets, strict=True)
    ]
    new = np.array([item not in taken[user] for user, item in zip(users, others.tolist(), strict=True)])
    liked = np.repeat([True, False], [len(items), int(new.sum())])
    return LabelledPairs(
        texts[np.concatenate([users, users[new]])], np.concatenate([items, others[new]]), liked
    )


@torch.no_grad()
def log_odds(
    pairs: LabelledPairs, model: TwoTower, users: _Floats, items: _Floats, temperature: float
) -> _Floats:
    """Gives (P,), what the model makes of the pairs.

    Args:
        pairs: of texts and items.
        model: with the numbers of the objective `interest`; the plain match before it has any.
        users: (T, D), vectors of the user texts.
        items: (N, D)
        temperature: of training.
    """
    weights, bias = _numbers(model)
    of_users, of_items = torch.from_numpy(users[pairs.texts]), torch.from_numpy(items[pairs.items])
    return interest_logits(of_users, of_items, weights=weights, bias=bias, temperature=temperature).numpy()


def _numbers(model: TwoTower) -> tuple[torch.Tensor, torch.Tensor]:
    numbers, width = model.task_numbers, model.user_tower.width
    if "interest_weights" in numbers:
        return numbers["interest_weights"].detach().cpu(), numbers["interest_bias"].detach().cpu()
    return torch.stack([torch.ones(width), *torch.zeros(2, width)]), torch.zeros(1)


def interest_auc(
    pairs: LabelledPairs, model: TwoTower, users: _Floats, items: _Floats, temperature: float
) -> float:
    """Gives how well likes are told from the rest; see `log_odds`."""
    return auc(log_odds(pairs, model, users, items, temperature), pairs.liked)


def calibrate(logits: NDArray[np.floating[Any]], liked: NDArray[np.bool_]) -> Calibration:
    """Fits slope and offset by maximum likelihood, with labels drawn in by Platt's counts.

    Labels that are all alike say nothing of the slope: a warning, and log-odds stay as they are.

    Args:
        logits: (P,), of pairs that were not trained on.
        liked: (P,)

    Source: Platt 1999, "Probabilistic outputs for support vector machines"; a slope alone is the temperature
    of Guo et al. 2017, arXiv 1706.04599.
    """
    n_liked, n_other = int(liked.sum()), int((~liked).sum())
    if not n_liked or not n_other:
        logger.warning(
            "interest: all %d validation pairs are %s, which calibrates nothing; chances stay as they are",
            len(liked),
            "liked" if n_liked else "not liked",
        )
        return Calibration(1.0, 0.0)
    targets = np.where(liked, (n_liked + 1) / (n_liked + 2), 1 / (n_other + 2))
    values = np.asarray(logits, np.float64)
    spread = max(float(values.std()), 1e-12)
    inputs = np.stack([(values - values.mean()) / spread, np.ones(len(values))], axis=1)
    found = np.zeros(2)
    for _ in range(100):
        chances = 1 / (1 + np.exp(-(inputs @ found)))
        weights = chances * (1 - chances)
        step = np.linalg.solve(
            inputs.T @ (weights[:, None] * inputs) + 1e-9 * np.eye(2), inputs.T @ (targets - chances)
        )
        found = found + step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    slope = float(found[0] / spread)
    return Calibration(slope, float(found[1] - slope * values.mean()))


def report_interest(
    validation: LabelledPairs,
    test: LabelledPairs,
    model: TwoTower,
    users: _Floats,
    items: _Floats,
    *,
    temperature: float,
) -> dict[str, Any]:
    """Gives how well likes are told on test pairs, and how honest the chances are before and after.

    Returns:
        `auc`, None where the test pairs are all alike; `calibration_error`, `calibration_error_before`; the
        number of test pairs `n`, the share of them that was `liked`; the calibrated `model`, see
        `rank.interest`.
    """
    before = log_odds(test, model, users, items, temperature)
    found = calibrate(log_odds(validation, model, users, items, temperature), validation.liked)
    return {
        "auc": None if test.liked.all() or not test.liked.any() else auc(before, test.liked),
        "calibration_error": expected_calibration_error(found.chances(before), test.liked),
        "calibration_error_before": expected_calibration_error(
            Calibration(1.0, 0.0).chances(before), test.liked
        ),
        "n": float(len(test.liked)),
        "liked": float(test.liked.mean()),
        "model": found.model(*_numbers(model), temperature=temperature).to_json(),
    }


def interest_line(found: dict[str, Any]) -> str:
    """Gives the report as one line."""
    told = "undefined" if found["auc"] is None else f"{found['auc']:.4f}"
    return (
        f"interest: AUC {told} on {found['n']:,.0f} test pairs, {found['liked']:.0%} liked;"
        f" chances are off by {found['calibration_error']:.3f} after calibration,"
        f" {found['calibration_error_before']:.3f} before"
    )
