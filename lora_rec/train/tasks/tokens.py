"""What the tasks share that ask something of every token: labels in batches, and scores of tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from lora_rec.text.collate import BatchSource
from lora_rec.train.shared import count_texts, learn_texts
from lora_rec.train.tasks.losses import IGNORED
from lora_rec.train.tasks.task import Validation, Work

LOGIT_ROWS = 512
LARGEST_LOSS = 700.0  # the exponential of more is no number of a computer
"""Tokens whose scores over the vocabulary are in memory at a time."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Texts with a label for each token; `IGNORED` where nothing is asked."""

    source: BatchSource
    labels: NDArray[np.int64]
    """(tokens), of the texts one after the other."""
    offsets: NDArray[np.int64]
    """(texts + 1)"""

    def padded(self, indices: NDArray[np.int64], length: int) -> torch.Tensor:
        """Gives (B, L), the labels of the chosen texts."""
        rows = np.full((len(indices), length), IGNORED, dtype=np.int64)
        for row, index in enumerate(indices):
            found = self.labels[self.offsets[index] : self.offsets[index + 1]]
            rows[row, : len(found)] = found
        return torch.from_numpy(rows)

    @cached_property
    def _asked_before(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.labels != IGNORED)])[self.offsets]

    def n_asked(self, indices: NDArray[np.int64]) -> int:
        """Counts the labels of the chosen texts."""
        return int((self._asked_before[indices + 1] - self._asked_before[indices]).sum())


def learn_tokens(
    work: Work, head: nn.Module, texts: Labelled, indices: NDArray[np.int64], *, weight: float, seed: int
) -> float:
    """Leaves the gradients of the mean cross-entropy over the labels of the chosen texts."""
    n_asked = texts.n_asked(indices)

    def loss(states: torch.Tensor, positions: NDArray[np.int64]) -> torch.Tensor:
        labels = texts.padded(indices[positions], states.shape[1]).to(states.device)
        return summed_loss(head, states, labels) / n_asked

    return learn_texts(
        work.accelerator,
        work.tower,
        texts.source,
        indices,
        loss,
        pooled=False,
        weight=weight,
        token_budget=work.token_budget,
        seed=seed,
    )


def measure_perplexity(
    work: Work, head: nn.Module, texts: Labelled, indices: NDArray[np.int64]
) -> Validation:
    """Gives the mean cross-entropy over the labels of the chosen texts, and its exponential."""

    def count(states: torch.Tensor, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        labels = texts.padded(indices[positions], states.shape[1]).to(states.device)
        return np.array([float(summed_loss(head, states, labels)), float((labels != IGNORED).sum())])

    total, n_asked = count_texts(
        work.accelerator,
        work.tower,
        texts.source,
        indices,
        count,
        n_numbers=2,
        pooled=False,
        token_budget=work.token_budget,
    )
    mean = float(total / n_asked)
    return Validation(mean, math.exp(mean) if mean < LARGEST_LOSS else math.inf)


def summed_loss(head: nn.Module, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Gives the sum of the cross-entropy over the tokens that have a label.

    The scores of a block of tokens are computed twice, the second time for their gradients, and never all in
    memory: there is one for each token of the vocabulary.

    Args:
        head: gives (n, C) logits from (n, H) states.
        states: (B, L, H)
        labels: (B, L) int64, or `IGNORED`.
    """
    asked = labels != IGNORED
    chosen, wanted = states[asked], labels[asked]
    total = 0.0 * states.float().sum()  # where nothing is asked there are gradients all the same: zeros

    def part(some: torch.Tensor, labels_of_some: torch.Tensor) -> torch.Tensor:
        return cross_entropy(head(some), labels_of_some, reduction="sum")

    for begin in range(0, len(wanted), LOGIT_ROWS):
        rows = slice(begin, begin + LOGIT_ROWS)
        if torch.is_grad_enabled() and len(wanted) > LOGIT_ROWS:
            total = total + checkpoint(part, chosen[rows], wanted[rows], use_reentrant=False)
        else:
            total = total + part(chosen[rows], wanted[rows])
    return total
