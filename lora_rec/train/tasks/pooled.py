"""What the tasks share that ask one thing of each text: its classes, from its vector."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lora_rec.text.collate import BatchSource
from lora_rec.train.shared import count_texts, learn_texts
from lora_rec.train.tasks.losses import shared_label_loss
from lora_rec.train.tasks.task import Validation, Work


def learn_classes(
    work: Work,
    head: nn.Module,
    source: BatchSource,
    indices: NDArray[np.int64],
    shares: NDArray[np.float32],
    *,
    weight: float,
    seed: int,
) -> float:
    """Leaves the gradients of the mean cross-entropy over texts.

    Args:
        work: with what.
        head: gives (B, C) logits from (B, H) vectors.
        source: all texts.
        indices: (B,), which of them.
        shares: (B, C), rows that sum to 1: the classes of each.
        weight: of the gradients.
        seed: of dropout.
    """
    wanted = torch.from_numpy(shares).to(work.tower.device)

    def loss(states: torch.Tensor, positions: NDArray[np.int64]) -> torch.Tensor:
        return shared_label_loss(head(states), wanted[torch.from_numpy(positions)]) / len(indices)

    return learn_texts(
        work.accelerator,
        work.tower,
        source,
        indices,
        loss,
        pooled=True,
        weight=weight,
        token_budget=work.token_budget,
        seed=seed,
    )


def measure_accuracy(
    work: Work,
    head: nn.Module,
    source: BatchSource,
    indices: NDArray[np.int64],
    shares: NDArray[np.float32],
) -> Validation:
    """Gives the mean cross-entropy, and the share of texts whose best class is one of theirs."""
    wanted = torch.from_numpy(shares).to(work.tower.device)

    def count(states: torch.Tensor, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        own, logits = wanted[torch.from_numpy(positions)], head(states)
        right = own.gather(1, logits.argmax(dim=1, keepdim=True)) > 0
        return np.array([float(shared_label_loss(logits, own)), float(right.sum())])

    loss, right = count_texts(
        work.accelerator,
        work.tower,
        source,
        indices,
        count,
        n_numbers=2,
        pooled=True,
        token_budget=work.token_budget,
    )
    return Validation(float(loss / len(indices)), float(right / len(indices)))
