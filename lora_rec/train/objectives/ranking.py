"""Losses that order items for a user: tensors in, a number out.

Users are rows (U, D) and items rows (M, D) of unit length; pair p of a batch says that user
`positive_users[p]` took item `positive_items[p]`.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from lora_rec.train.losses import smooth_softmax


def drawn_softmax_loss(
    user_embeddings: torch.Tensor,
    item_embeddings: torch.Tensor,
    *,
    positive_users: torch.Tensor,
    positive_items: torch.Tensor,
    log_counts: torch.Tensor,
    temperature: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy of each positive pair against negatives that stand for the whole catalogue.

    The sum that the softmax divides by is exp(s_ui / temperature) and, over the negatives j, count_j
    exp(s_uj / temperature): a negative that was drawn with chance q stands for 1 / q items, so the sum is
    right on average.

    Args:
        user_embeddings: (U, D).
        item_embeddings: (M, D).
        positive_users: (P,)
        positive_items: (P,)
        log_counts: (U, M), log of how many items each stands for; -inf for what is no negative.
        temperature: > 0; scores are divided by it.
        label_smoothing: share of the label that is spread over the negatives, by their counts.

    Source: Bengio and Senecal 2008, "Adaptive importance sampling to accelerate training of a neural
    probabilistic language model".
    """
    scores = user_embeddings @ item_embeddings.T / temperature
    positives = scores[positive_users, positive_items]
    # Not -inf, of which a row without any negative would make a gradient that is no number.
    negatives = torch.logsumexp(scores + log_counts.clamp(min=-1e4), dim=1)[positive_users]
    total = torch.logaddexp(positives, negatives)
    losses = total - positives
    if label_smoothing:
        counts = log_counts.exp()
        losses = smooth_softmax(
            losses, total, scores, counts, positive_users, label_smoothing=label_smoothing
        )
    return losses.mean()


def bpr_loss(
    user_embeddings: torch.Tensor,
    item_embeddings: torch.Tensor,
    *,
    positive_users: torch.Tensor,
    positive_items: torch.Tensor,
    negative_mask: torch.Tensor,
    temperature: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Chance that a positive is below a negative: -log sigmoid((s_ui - s_uj) / temperature), on average.

    Each positive pair counts alike: the mean over its user's negatives, then over the pairs.

    Args:
        user_embeddings: (U, D).
        item_embeddings: (M, D).
        positive_users: (P,)
        positive_items: (P,)
        negative_mask: (U, M) bool, true where the item is a negative of the user.
        temperature: > 0; differences are divided by it.
        label_smoothing: chance that a pair is the wrong way round.

    Source: Rendle et al. 2009, "BPR: Bayesian personalized ranking from implicit feedback", arXiv 1205.2618.
    """
    scores = user_embeddings @ item_embeddings.T / temperature
    margins = scores[positive_users, positive_items][:, None] - scores[positive_users]
    mask = negative_mask[positive_users]
    losses = (1 - label_smoothing) * functional.softplus(-margins) + label_smoothing * functional.softplus(
        margins
    )
    return ((losses * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()


def listwise_loss(
    scores: torch.Tensor,
    clicks: torch.Tensor,
    present: torch.Tensor,
    *,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy within each shown list: -log softmax of its clicks, which share a weight of one.

    Args:
        scores: (L, K), of the items shown, over the temperature.
        clicks: (L, K) bool; each list has one at least.
        present: (L, K) bool, false where a list is shorter.
        label_smoothing: share of the label that all items of the list get alike.

    Source: Cao et al. 2007, "Learning to rank: from pairwise approach to listwise approach", the top one
    probability.
    """
    logs = scores.masked_fill(~present, -torch.inf).log_softmax(dim=1).masked_fill(~present, 0.0)
    targets = clicks / clicks.sum(dim=1, keepdim=True)
    alike = present / present.sum(dim=1, keepdim=True)
    targets = (1 - label_smoothing) * targets + label_smoothing * alike
    return -(targets * logs).sum(dim=1).mean()
