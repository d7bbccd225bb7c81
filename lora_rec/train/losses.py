"""Losses on embeddings: tensors in, a number out."""

from __future__ import annotations

import torch


def in_batch_softmax_loss(
    user_embeddings: torch.Tensor,
    item_embeddings: torch.Tensor,
    *,
    positive_users: torch.Tensor,
    positive_items: torch.Tensor,
    log_popularity: torch.Tensor,
    known_mask: torch.Tensor,
    temperature: float,
    popularity_correction: float = 1.0,
) -> torch.Tensor:
    """Cross-entropy of each positive pair against the batch's other distinct items.

    For a pair (u, i) the logits are s_uj / temperature - popularity_correction * log q_j over i itself and
    every item j of the batch that user u is not known to have taken; the loss is the mean of -log softmax at
    i.

    Args:
        user_embeddings: (U, D), unit length, one per distinct user text.
        item_embeddings: (M, D), unit length, one per distinct item.
        positive_users: (P,), row of each pair's user.
        positive_items: (P,), row of each pair's item.
        log_popularity: (M,), log of each item's probability to be drawn as a positive.
        known_mask: (U, M) bool, true where the user has taken the item: repeats and other positives, which
            are left
            out of the negatives.
        temperature: > 0; scores are divided by it.
        popularity_correction: 1 estimates the softmax over the catalogue, 0 leaves the sampling bias in.

    Raises:
        ValueError: shapes differ, or temperature is not positive.

    Source: Yi et al. 2019, "Sampling-bias-corrected neural modeling for large corpus item recommendations",
    eq. 4-6.
    """
    n_users, n_items = len(user_embeddings), len(item_embeddings)
    if known_mask.shape != (n_users, n_items) or log_popularity.shape != (n_items,):
        raise ValueError(
            f"known_mask {tuple(known_mask.shape)} and log_popularity {tuple(log_popularity.shape)}"
            f" do not fit {n_users} users and {n_items} items"
        )
    if positive_users.shape != positive_items.shape:
        raise ValueError("positive_users and positive_items differ in length")
    if temperature <= 0:
        raise ValueError(f"temperature: {temperature} is not positive")
    logits = user_embeddings @ item_embeddings.T / temperature - popularity_correction * log_popularity
    negatives = torch.logsumexp(logits.masked_fill(known_mask, -torch.inf), dim=1)
    positives = logits[positive_users, positive_items]
    return (torch.logaddexp(positives, negatives[positive_users]) - positives).mean()


def alignment_loss(embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Half the mean squared distance of unit vectors to a teacher's, 1 - cos.

    Args:
        embeddings: (n, D), unit length.
        targets: (n, D), unit length.

    Raises:
        ValueError: shapes differ.
    """
    if embeddings.shape != targets.shape:
        raise ValueError(
            f"embeddings {tuple(embeddings.shape)} and targets {tuple(targets.shape)} differ in shape"
        )
    return (1 - (embeddings * targets).sum(dim=1)).mean()
