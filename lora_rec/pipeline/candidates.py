"""Chooses and fits the scorer of shown lists on a log of impressions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lora_rec.data.impressions import Impressions, ImpressionSplit, join_impressions
from lora_rec.data.lists import Lists
from lora_rec.errors import ArgumentError
from lora_rec.metrics import impression_auc
from lora_rec.rank.candidates import CandidateScorer
from lora_rec.train.candidates import learn_click_bias
from lora_rec.train.text_match import train_text_match

EPOCHS = (6, 3, 12)
RATE_PRIORS = (30.0, 10.0, 100.0, 300.0)


@dataclass(frozen=True)
class CandidateChoice:
    """The settings that validated best."""

    epochs: int
    rate_prior: float
    validation: float
    """Mean AUC within an impression."""
    trials: int


def fit_candidates(
    text_vectors: NDArray[np.float32],
    split: ImpressionSplit,
    *,
    n_trials: int = len(EPOCHS) * len(RATE_PRIORS),
    width: int = 384,
    history_length: int = 50,
    seed: int = 0,
    show_progress: bool = False,
) -> tuple[CandidateScorer, CandidateChoice]:
    """Chooses on the validation impressions, then fits on all that lies before the test.

    Args:
        text_vectors: (N, D), of all items, also those that nobody was shown yet.
        split: its test part is not looked at.
        n_trials: settings tried at most.
        width: see `train_text_match`.
        history_length: see `train_text_match`.
        seed: of `train_text_match`.
        show_progress: a bar.

    Two kinds of items and users who click one of them; then a new item, known by its text:

    >>> from lora_rec.data import split_impressions
    >>> texts = np.eye(2, dtype="f4")[np.arange(12) % 2]
    >>> likes = np.arange(40) % 2
    >>> histories = Lists.from_arrays([like, like + 2, like + 4] for like in likes)
    >>> candidates = Lists.from_arrays([[10, 11]] * 40)
    >>> days = 86_400 * (np.arange(40) // 10)
    >>> clicks = candidates.values % 2 == likes.repeat(2)
    >>> shown = Impressions(np.arange(40), days, histories, candidates, clicks)
    >>> scorer, choice = fit_candidates(texts, split_impressions(shown, test_from=3 * 86_400))
    >>> choice.validation
    1.0
    >>> scorer = scorer.with_items(texts[[1]])
    >>> scores = scorer.scores(Lists.from_arrays([[1, 3]]), Lists.from_arrays([[10, 12]]))
    >>> bool(scores[1] > scores[0])
    True
    """

    def train(impressions: Impressions, epochs: int) -> CandidateScorer:
        return train_text_match(
            text_vectors,
            last_histories(impressions),
            width=width,
            history_length=history_length,
            epochs=epochs,
            seed=seed,
        )

    shown, trials = split.validation, list(product(EPOCHS, RATE_PRIORS))[:n_trials]
    matches: dict[int, CandidateScorer] = {}
    best: tuple[float, int, float] | None = None
    for epochs, rate_prior in tqdm(trials, desc="candidates", disable=not show_progress):
        if epochs not in matches:
            matches[epochs] = train(split.train, epochs)
        scorer = learn_click_bias(matches[epochs], split.train, rate_prior=rate_prior)
        scores = scorer.scores(shown.histories, shown.candidates)
        score = float(np.nanmean(impression_auc(scores, shown.clicks, shown.candidates.offsets)))
        if best is None or score > best[0]:
            best = (score, epochs, rate_prior)
    if best is None:
        raise ArgumentError(f"n_trials: {n_trials} is below 1")
    score, epochs, rate_prior = best
    before = join_impressions([split.train, split.validation])
    scorer = learn_click_bias(train(before, epochs), before, rate_prior=rate_prior)
    return scorer, CandidateChoice(epochs, rate_prior, score, len(trials))


def last_histories(impressions: Impressions) -> Lists:
    """Gives the newest history of each user: the earlier ones are parts of it."""
    order = np.argsort(impressions.times, kind="stable")[::-1]
    _, first = np.unique(impressions.users[order], return_index=True)
    return impressions.histories.take(order[first])
