"""The optimizer and its schedule."""

from __future__ import annotations

import math

import torch
from torch import nn


def build_optimizer(
    adapters: list[nn.Parameter], *, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """Gives AdamW over the adapters."""
    return torch.optim.AdamW(adapters, lr=learning_rate, weight_decay=weight_decay)


def warmup_cosine(
    optimizer: torch.optim.Optimizer, *, n_steps: int, warmup_share: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """Gives a schedule that rises over the first share of the steps and falls to zero along a cosine."""
    warmup = max(1, round(warmup_share * n_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
