"""What the tasks share that compare two views: the loss over a batch, and who finds its partner."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from lora_rec.text.collate import TokenizedTexts
from lora_rec.train.shared import backpropagate, shared_leaf, shared_states
from lora_rec.train.tasks.losses import contrastive_loss
from lora_rec.train.tasks.task import Validation, Work

BLOCK = 64
"""Views among which a held-out one looks for its partner."""

Tokenize = Callable[[Sequence[str]], TokenizedTexts]


def learn_views(
    work: Work,
    views: Sequence[str],
    tokenize: Tokenize,
    *,
    temperature: float,
    weight: float,
    seed: int,
) -> float:
    """Leaves the gradients of `losses.contrastive_loss`.

    Args:
        work: with what; the tower's vectors are those that are compared.
        views: 2B texts: one view of each, then the other view of each.
        tokenize: gives their token ids.
        temperature: of the loss.
        weight: of the gradients.
        seed: of dropout.
    """
    distinct, numbers = np.unique(np.array(views, dtype=object), return_inverse=True)
    source, indices = tokenize(distinct.tolist()), np.arange(len(distinct))
    budget = work.token_budget
    leaf = shared_leaf(work.accelerator, work.tower, source, indices, token_budget=budget, seed=seed)
    loss = _loss(leaf[torch.from_numpy(numbers)], numbers, temperature)
    (weight * loss).backward()
    backpropagate(work.accelerator, work.tower, source, indices, leaf=leaf, token_budget=budget, seed=seed)
    return loss.item()


def measure_retrieval(work: Work, source: TokenizedTexts, *, temperature: float) -> Validation:
    """Gives the mean loss in blocks of 64, and how often a view's nearest one in its block is its partner.

    Args:
        work: with what.
        source: 2n texts: one view of each, then the other view of each.
        temperature: of the loss.
    """
    states = shared_states(work.accelerator, work.tower, source, token_budget=work.token_budget)
    vectors = normalize(torch.from_numpy(states), dim=1)
    n = len(vectors) // 2
    found, losses = 0, []
    for begin in range(0, n, BLOCK):
        rows = np.arange(begin, min(begin + BLOCK, n))
        both = np.concatenate([rows, n + rows])
        one, other = vectors[rows], vectors[n + rows]
        found += int(((one @ other.T).argmax(dim=1) == torch.arange(len(rows))).sum())
        numbers = np.unique([source[int(i)].tobytes() for i in both], return_inverse=True)[1]
        losses += [float(_loss(vectors[both], numbers, temperature))] * len(rows)
    return Validation(float(np.mean(losses)), found / n)


def _loss(vectors: torch.Tensor, numbers: NDArray[np.int64], temperature: float) -> torch.Tensor:
    same = torch.from_numpy(numbers[:, None] == numbers[None, :]).to(vectors.device)
    n = len(vectors) // 2
    return contrastive_loss(vectors[:n], vectors[n:], same=same, temperature=temperature)
