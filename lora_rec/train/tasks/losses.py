"""Losses of the tasks without labels: tensors in, a number out."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, log_softmax, normalize

IGNORED = -100
"""Label of a token that is not asked for."""


def contrastive_loss(
    first: torch.Tensor, second: torch.Tensor, *, same: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Cross-entropy of each view's partner against all other views of the batch (NT-Xent).

    For view i with partner p the logits are cos_ij / temperature over every other view j that has not the
    text of i or of p; the loss is the mean of -log softmax at p over all 2B views.

    Args:
        first: (B, D), one view of each.
        second: (B, D), the other view of each.
        same: (2B, 2B) bool, true where two views, all first ones and then all second ones, have one text.
        temperature: > 0.

    Raises:
        ValueError: shapes differ, or temperature is not positive.

    Source: Chen et al. 2020, "A simple framework for contrastive learning of visual representations", arXiv
    2002.05709, eq. 1.
    """
    if first.shape != second.shape or same.shape != (2 * len(first), 2 * len(first)):
        raise ValueError(f"views {tuple(first.shape)}, {tuple(second.shape)} and same {tuple(same.shape)}")
    if temperature <= 0:
        raise ValueError(f"temperature: {temperature} is not positive")
    views = normalize(torch.cat([first, second]).float(), dim=1)
    n = len(views)
    partner = (torch.arange(n, device=views.device) + n // 2) % n
    left_out = same | same[partner]
    left_out[torch.arange(n, device=views.device), partner] = False
    logits = (views @ views.T / temperature).masked_fill(left_out, -torch.inf)
    return cross_entropy(logits, partner)


def shared_label_loss(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Sum over rows of the cross-entropy with labels that share 1.

    Args:
        logits: (B, C)
        shares: (B, C), rows that sum to 1: a text of two categories has half of each.
    """
    return -(shares * log_softmax(logits.float(), dim=1)).sum()
