"""The optimizer and its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from lora_rec.towers.two_tower import NUMBERS


def build_optimizer(
    trained: Mapping[str, nn.Parameter],
    *,
    factor: Callable[[str], float],
    learning_rate: float,
    weight_decay: float,
) -> torch.optim.AdamW:
    """Gives AdamW over all that is trained.

    Args:
        trained: tensors by name.
        factor: of the rate, by name: LoRA+ lets B move faster than A.
        learning_rate: peak rate.
        weight_decay: of AdamW, for the adapters; the objectives' own numbers do not decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        decay = 0.0 if name.startswith(NUMBERS) else weight_decay
        groups.setdefault((factor(name), decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": group, "lr": learning_rate * ratio, "weight_decay": decay}
            for (ratio, decay), group in groups.items()
        ],
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
