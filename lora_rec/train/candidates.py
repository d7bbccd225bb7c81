"""Learns from shown lists what everybody clicks, beside the match of `text_match`.

Three numbers are learned: the weight of the match, of an item's click rate so far, and of never having been
shown. They are learned as they will be used: the click rates of an impression are those of the periods before
its own, so an item is as new there as it will be tomorrow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lora_rec.data.impressions import Impressions
from lora_rec.data.lists import Lists
from lora_rec.errors import DataError
from lora_rec.rank.candidates import CandidateScorer

_Floats = NDArray[np.float64]
DAY = 86_400
REGULARISATION = 1.0
"""On the squared weights, against a loss that is summed over impressions."""


@dataclass(frozen=True, eq=False)
class ClickStatistics:
    """What is known of each item from shown lists, in numbers that add up with the match."""

    log_lift: _Floats
    """(N,), log of the click rate over that of all items; 0 for an item that was never shown."""
    new: _Floats
    """(N,), 1 for an item that was never shown, else 0."""


def count_clicks(impressions: Impressions, *, n_items: int, rate_prior: float) -> ClickStatistics:
    """Counts shown and clicked.

    Args:
        impressions: shown lists.
        n_items: N.
        rate_prior: an item's click rate is drawn to that of all by so many more times shown.
    """
    items = impressions.candidates.values
    shown = np.bincount(items, minlength=n_items)
    clicked = np.bincount(items[impressions.clicks], minlength=n_items)
    rate = clicked.sum() / max(1, shown.sum())
    # Without any click no rate tells anything, and the lift is 0 throughout.
    lift = (clicked + rate_prior * rate) / ((shown + rate_prior) * rate) if rate else np.ones(n_items)
    return ClickStatistics(np.log(lift), (shown == 0).astype(np.float64))


def learn_click_bias(
    scorer: CandidateScorer, impressions: Impressions, *, rate_prior: float = 30.0, period: int = DAY
) -> CandidateScorer:
    """Gives the scorer with item biases learned from shown lists, and its match weighed against them.

    Args:
        scorer: of `train_text_match`; biases that it has are replaced.
        impressions: shown lists, in any order.
        rate_prior: see `count_clicks`; above 0.
        period: seconds, counted back from the last impression. Lists of the first period are only counted.

    Raises:
        DataError: fewer than two periods, or no list after the first with a click and without another.
    """
    if rate_prior <= 0:
        raise ValueError(f"rate_prior: {rate_prior} is not positive")
    n_items = len(scorer.items)
    match = replace(scorer, item_bias=np.zeros(n_items, dtype=np.float32), new_item_bias=0.0)
    age = check_periods(impressions, period=period)
    features, later = [], []
    for number in range(int(age.max()) - 1, -1, -1):
        rows = np.flatnonzero(age == number)
        shown = impressions.take(rows)
        before = impressions.take(np.flatnonzero(age > number))
        counts = count_clicks(before, n_items=n_items, rate_prior=rate_prior)
        items = shown.candidates.values
        columns = (match.scores(shown.histories, shown.candidates), counts.log_lift[items], counts.new[items])
        features.append(np.stack(columns, axis=1).astype(np.float64))
        later.append(rows)
    shown = impressions.take(np.concatenate(later))
    match_weight, rate_weight, new_weight = fit_weights(
        np.concatenate(features), shown.candidates, shown.clicks
    ).tolist()
    counts = count_clicks(impressions, n_items=n_items, rate_prior=rate_prior)
    bias = rate_weight * counts.log_lift + new_weight * counts.new
    return replace(
        scorer,
        item_bias=bias.astype(np.float32),
        history_weight=scorer.history_weight * match_weight,
        new_item_bias=new_weight,
    )


def check_periods(impressions: Impressions, *, period: int = DAY) -> NDArray[np.int64]:
    """Gives the age (n,) of each list in periods before the last one, if click rates can be weighed by them.

    Raises:
        DataError: fewer than two periods, or no list after the first with a click and without another.
    """
    age = (impressions.times.max(initial=0) - impressions.times) // period
    if len(impressions) == 0 or age.min() == age.max():
        raise DataError(
            f"impressions.times: all {len(impressions):,} lists to learn from lie within {period:,} seconds,"
            " and click rates are those of the time before; give a longer log"
        )
    if not (impressions.tells & (age < age.max())).any():
        raise DataError(
            f"impressions.clicks: no list after the first {period:,} seconds has a click and an item without;"
            " nothing can be learned from these"
        )
    return age


def fit_weights(features: _Floats, candidates: Lists, clicks: NDArray[np.bool_]) -> _Floats:
    """Gives the weights (F,) under which clicks stand out in their lists: a conditional logit model.

    The loss is -log softmax of each click against the others of its list that were not clicked; the clicks
    of a list share its weight of one. It is convex, so there is one answer.

    Args:
        features: (C, F), one row per entry of `candidates.values`.
        candidates: shown lists.
        clicks: (C,)

    Raises:
        DataError: no list has a click and an item without.

    Source: McFadden 1974, "Conditional logit analysis of qualitative choice behavior".
    """
    owners = np.repeat(np.arange(len(candidates)), candidates.counts)
    n_clicks = np.bincount(owners, weights=clicks, minlength=len(candidates))
    tells = (n_clicks > 0) & (n_clicks < candidates.counts)
    if not tells.any():
        raise DataError(
            f"impressions.clicks: none of {len(candidates)} lists has a click and an item without;"
            " nothing can be learned from these"
        )
    _, rows = np.unique(owners[tells[owners]], return_inverse=True)
    n_lists = int(tells.sum())
    kept = np.flatnonzero(tells[owners])
    values, lists = torch.from_numpy(features[kept]), torch.from_numpy(rows)
    clicked = torch.from_numpy(clicks[kept])
    shares = torch.from_numpy(1 / n_clicks[owners[kept]])[clicked]
    weights = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        scores = values @ weights
        others, of = scores[~clicked], lists[~clicked]
        top = torch.full((n_lists,), -torch.inf, dtype=torch.float64)
        top = top.scatter_reduce(0, of, others.detach(), "amax")
        sums = torch.zeros(n_lists, dtype=torch.float64).index_add(0, of, (others - top[of]).exp())
        against = (sums.log() + top)[lists[clicked]]
        surprise = torch.logaddexp(scores[clicked], against) - scores[clicked]
        total = (shares * surprise).sum() + REGULARISATION * weights.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[arg-type]
    return np.asarray(weights.detach().numpy())
