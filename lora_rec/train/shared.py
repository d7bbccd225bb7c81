"""Encoding shared by the processes of a run: each does its part, all see all vectors.

Process p of P has the positions p, p + P, p + 2P, ... of a list of distinct texts. With gradients, embeddings
are first computed without a graph; the loss gives their gradient; a second pass carries it through the tower,
one micro-batch at a time, so the batch size does not set the memory (gradient caching, Gao et al. 2021, arXiv
2101.06983). Where the processes share a tower's frozen layers, too (`train.sharding`), all make equally many
passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray

from lora_rec.text.collate import BatchSource, TokenBatch, plan_micro_batches
from lora_rec.towers.two_tower import Tower, batch_or_first, encode_states
from lora_rec.train.adversary import Shifts
from lora_rec.train.sharding import in_company

TextLoss = Callable[[torch.Tensor, NDArray[np.int64]], torch.Tensor]
"""From states and the positions of their texts to a number."""
TextCount = Callable[[torch.Tensor, NDArray[np.int64]], NDArray[np.float64]]
"""From states and the positions of their texts to numbers that add up."""


def shared_leaf(
    accelerator: Accelerator,
    tower: Tower,
    source: BatchSource,
    indices: NDArray[np.int64],
    *,
    token_budget: int,
    seed: int,
    shifts: Shifts | None = None,
) -> torch.Tensor:
    """Gives all embeddings, (n, D), as a leaf that collects their gradient; see `backpropagate`."""
    mine = _share(accelerator, len(indices))
    part = torch.zeros(-(-len(indices) // accelerator.num_processes), tower.width, device=tower.device)
    tower.train()
    with torch.no_grad():
        for rows, batch in _micro_batches(accelerator, tower, source, indices[mine], token_budget, seed):
            if shifts is not None and len(rows):
                batch = shifts.on(batch, indices[mine[rows]])
            part[rows] = tower(batch.to(tower.device))[: len(rows)]
    return _join(accelerator, part, len(indices)).clone().requires_grad_()


def backpropagate(
    accelerator: Accelerator,
    tower: Tower,
    source: BatchSource,
    indices: NDArray[np.int64],
    *,
    leaf: torch.Tensor,
    token_budget: int,
    seed: int,
    shifts: Shifts | None = None,
) -> None:
    """Carries the leaf's gradient (n, D) for this process's texts into the tower; seed as for the leaf."""
    if not tower.trained_parameters():
        return
    assert leaf.grad is not None  # the loss has been differentiated
    mine = _share(accelerator, len(indices))
    for rows, batch in _micro_batches(accelerator, tower, source, indices[mine], token_budget, seed):
        if shifts is not None and len(rows):
            batch = shifts.on(batch, indices[mine[rows]])
        tower(batch.to(tower.device))[: len(rows)].backward(leaf.grad[mine[rows]])
        if shifts is not None and len(rows):
            shifts.move(batch, indices[mine[rows]])


def sum_gradients(accelerator: Accelerator, parameters: Iterable[torch.nn.Parameter]) -> None:
    """Adds the gradients of all processes; one that has none adds zero."""
    if accelerator.num_processes == 1:
        return
    for parameter in parameters:
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        parameter.grad = accelerator.reduce(gradient, reduction="sum")


def shared_states(
    accelerator: Accelerator, tower: Tower, source: BatchSource, *, token_budget: int
) -> NDArray[np.float32]:
    """Gives the pooled states of all texts of a source, (n, H), without gradients."""
    n = len(source.lengths)
    mine = _share(accelerator, n)
    part = np.zeros((-(-n // accelerator.num_processes), tower.hidden_size), dtype=np.float32)
    complete = partial(in_company, accelerator, tower.is_sharded)
    part[: len(mine)] = encode_states(tower, source, mine, token_budget=token_budget, complete=complete)
    return _join(accelerator, torch.from_numpy(part).to(accelerator.device), n).cpu().numpy()


def learn_texts(
    accelerator: Accelerator,
    tower: Tower,
    source: BatchSource,
    indices: NDArray[np.int64],
    loss: TextLoss,
    *,
    pooled: bool,
    weight: float,
    token_budget: int,
    seed: int,
) -> float:
    """Leaves the gradients of this process's texts for a loss that is a sum over texts.

    Args:
        accelerator: whose processes share the texts.
        tower: in any mode; the adapter's dropout is on afterwards.
        source: token ids or cached prefixes.
        indices: which texts.
        loss: of a micro-batch, its part of the whole.
        pooled: whether it is of one vector a text (B, H), or of all states (B, L, H).
        weight: of the gradients, not of what is given back.
        token_budget: padded tokens in one micro-batch.
        seed: of dropout.

    Returns:
        The loss of all texts.
    """
    mine = _share(accelerator, len(indices))
    total = torch.zeros((), device=tower.device)
    tower.train()
    for rows, batch in _micro_batches(accelerator, tower, source, indices[mine], token_budget, seed):
        states = _encode(tower, batch, pooled)
        value = loss(states, mine[rows]) if len(rows) else 0 * states.sum()
        (weight * value).backward()
        total += value.detach()
    return float(accelerator.reduce(total, reduction="sum"))


@torch.no_grad()
def count_texts(
    accelerator: Accelerator,
    tower: Tower,
    source: BatchSource,
    indices: NDArray[np.int64],
    count: TextCount,
    *,
    n_numbers: int,
    pooled: bool,
    token_budget: int,
) -> NDArray[np.float64]:
    """Adds up the `n_numbers` that `count` gives for each micro-batch; the rest is as in `learn_texts`."""
    mine = _share(accelerator, len(indices))
    total = np.zeros(n_numbers)
    was_training = tower.training
    tower.eval()
    plan = plan_micro_batches(source.lengths[indices[mine]], token_budget=token_budget)
    for rows in in_company(accelerator, tower.is_sharded, plan):
        states = _encode(tower, batch_or_first(source, indices[mine][rows]), pooled)
        total += count(states, mine[rows]) if len(rows) else 0
    tower.train(was_training)
    return accelerator.reduce(torch.from_numpy(total).to(tower.device), reduction="sum").cpu().numpy()


def _encode(tower: Tower, batch: TokenBatch, pooled: bool) -> torch.Tensor:
    encode = tower.encode_states if pooled else tower.encode_tokens
    return encode(batch.to(tower.device))


def same_everywhere(accelerator: Accelerator, compute: Callable[[], float]) -> float:
    """Computes a number in the main process and gives it to all: sums depend on threads in the last bits."""
    found = [compute() if accelerator.is_main_process else 0.0]
    broadcast_object_list(found)
    return found[0]


def _share(accelerator: Accelerator, n: int) -> NDArray[np.int64]:
    return np.arange(accelerator.process_index, n, accelerator.num_processes)


def _join(accelerator: Accelerator, part: torch.Tensor, n: int) -> torch.Tensor:
    parts = accelerator.gather(part).view(accelerator.num_processes, -1, part.shape[1])
    return parts.transpose(0, 1).reshape(-1, part.shape[1])[:n]


def _micro_batches(
    accelerator: Accelerator,
    tower: Tower,
    source: BatchSource,
    indices: NDArray[np.int64],
    token_budget: int,
    seed: int,
) -> Iterator[tuple[NDArray[np.int64], TokenBatch]]:
    """Yields positions and batches; both passes of a step draw the same dropout."""
    plan = plan_micro_batches(source.lengths[indices], token_budget=token_budget)
    for number, rows in enumerate(in_company(accelerator, tower.is_sharded, plan)):
        torch.manual_seed(seed + 7919 * number)
        yield rows, batch_or_first(source, indices[rows])
