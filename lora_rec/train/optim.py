"""The optimizer and its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn


def build_optimizer(
    adapters: Mapping[str, nn.Parameter],
    *,
    factor: Callable[[str], float],
    learning_rate: float,
    weight_decay: float,
) -> torch.optim.AdamW:
    """Gives AdamW over the adapters.

    Args:
        adapters: trained tensors by name.
        factor: of the rate, by name: LoRA+ lets B move faster than A.
        learning_rate: peak rate.
        weight_decay: of AdamW.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in adapters.items():
        groups.setdefault(factor(name), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": group, "lr": learning_rate * ratio} for ratio, group in groups.items()],
        weight_decay=weight_decay,
    )


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
