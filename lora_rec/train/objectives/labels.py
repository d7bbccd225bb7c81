"""Losses that tell labels: of a pair of user and item, or of an item alone."""

from __future__ import annotations

import torch
from torch.nn import functional


def interest_logits(
    user_embeddings: torch.Tensor,
    item_embeddings: torch.Tensor,
    *,
    weights: torch.Tensor,
    bias: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Gives (P,), the log-odds that each user likes the item beside it.

    The match of both, axis by axis, and what each says alone: some items are liked by most, some users like
    most. The temperature divides the match alone: it is as small as a match of unit vectors needs, and would
    make steps of the other weights so large that what they learn is noise.

    Args:
        user_embeddings: (P, D).
        item_embeddings: (P, D).
        weights: (3, D), of the match, the user and the item.
        bias: (1,)
        temperature: > 0; the match is divided by it.
    """
    match, user, item = weights
    matched = (user_embeddings * item_embeddings) @ match / temperature
    return matched + user_embeddings @ user + item_embeddings @ item + bias


def interest_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Binary cross-entropy of likes.

    Args:
        logits: (P,)
        labels: (P,) bool.
        label_smoothing: a label of 1 becomes 1 - half of it, one of 0 half of it.
    """
    targets = smooth(labels.to(logits.dtype), label_smoothing)
    return functional.binary_cross_entropy_with_logits(logits, targets)


def class_loss(logits: torch.Tensor, labels: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy of one label for each item; 0 where no item has one.

    Args:
        logits: (M, C).
        labels: (M,), -1 where it is not known.
        label_smoothing: share of the label that all classes get alike.
    """
    if not bool((labels >= 0).any()):
        return 0.0 * logits.sum()
    return functional.cross_entropy(logits, labels, ignore_index=-1, label_smoothing=label_smoothing)


def tags_loss(logits: torch.Tensor, tags: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """Binary cross-entropy of each label, averaged over labels and the items that have any.

    Args:
        logits: (M, C).
        tags: (M, C) bool; an item without any is left out: nobody has labelled it.
        label_smoothing: see `interest_loss`.
    """
    labelled = tags.any(dim=1)
    if not bool(labelled.any()):
        return 0.0 * logits.sum()
    targets = smooth(tags[labelled].to(logits.dtype), label_smoothing)
    return functional.binary_cross_entropy_with_logits(logits[labelled], targets)


def smooth(labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Moves labels of 0 and 1 towards a half."""
    return labels * (1 - label_smoothing) + label_smoothing / 2
