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
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray

from lora_rec.text.collate import BatchSource, TokenBatch, plan_micro_batches
from lora_rec.towers.two_tower import Tower, batch_or_first, encode_states
from lora_rec.train.adversary import Shifts
from lora_rec.train.sharding import in_company

Found = TypeVar("Found")
TextLoss = Callable[[torch.Tensor, NDArray[np.int64]], torch.Tensor]
"""From states and the positions of their texts to a number."""
TextCount = Callable[[torch.Tensor, NDArray[np.int64]], NDArray[np.float64]]
"""From states and the positions of their texts to numbers that add up."""


class _Encoded(NamedTuple):
    rows: NDArray[np.int64]
    """Among this process's texts."""
    batch: TokenBatch
    vectors: torch.Tensor


class SharedPass:
    """One pass of a step's texts through a tower: their embeddings, and later the gradients of its adapter.

    Gradients are cached, as the module says. But where all micro-batches together are no larger than one
    that the budget allows, their graphs are kept from the first pass on, which saves the second.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        tower: Tower,
        source: BatchSource,
        indices: NDArray[np.int64],
        *,
        token_budget: int,
        seed: int,
        shifts: Shifts | None = None,
    ) -> None:
        """Computes the embeddings.

        Args:
            accelerator: whose processes share the texts.
            tower: in any mode; the adapter's dropout is on afterwards.
            source: token ids or cached prefixes.
            indices: (n,), which texts.
            token_budget: padded tokens in one micro-batch.
            seed: of dropout.
            shifts: of the states that enter the trained layers, moved after the pass.
        """
        self._accelerator, self._tower, self._source, self._shifts = accelerator, tower, source, shifts
        self._texts, self._budget, self._seed = indices, token_budget, seed
        self._mine = _share(accelerator, len(indices))
        part = torch.zeros(-(-len(indices) // accelerator.num_processes), tower.width, device=tower.device)
        tower.train()
        # Frozen layers that are shared are run by all processes at once, which may not all have room to keep.
        keep = bool(tower.trained_parameters()) and not tower.is_sharded
        keep = keep and self._padded_tokens() <= token_budget
        self._kept: list[_Encoded] = []
        with torch.set_grad_enabled(keep):
            for encoded in self._encode():
                part[encoded.rows] = encoded.vectors.detach()
                if keep:
                    self._kept.append(encoded)
        self.leaf = _join(accelerator, part, len(indices)).clone().requires_grad_()
        """(n, D), all embeddings; collects their gradient."""

    def backward(self) -> None:
        """Carries the leaf's gradient for this process's texts into the tower."""
        if not self._tower.trained_parameters():
            return
        assert self.leaf.grad is not None  # the loss has been differentiated
        for rows, batch, vectors in self._kept or self._encode():
            texts = self._mine[rows]
            vectors.backward(self.leaf.grad[texts])
            if self._shifts is not None and len(rows):
                self._shifts.move(batch, self._texts[texts])

    def _encode(self) -> Iterator[_Encoded]:
        for rows, batch in _micro_batches(
            self._accelerator, self._tower, self._source, self._texts[self._mine], self._budget, self._seed
        ):
            if self._shifts is not None and len(rows):
                batch = self._shifts.on(batch, self._texts[self._mine[rows]])
            yield _Encoded(rows, batch, self._tower(batch.to(self._tower.device))[: len(rows)])

    def _padded_tokens(self) -> int:
        lengths = self._source.lengths[self._texts[self._mine]]
        plan = plan_micro_batches(lengths, token_budget=self._budget)
        return sum(len(rows) * int(lengths[rows].max()) for rows in plan)


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
    """Computes a number in the main process and gives it to all."""
    return as_in_main(compute() if accelerator.is_main_process else 0.0)


def as_in_main(found: Found) -> Found:
    """Gives all processes what the main one found.

    All found it from the same numbers, but sums depend on threads and processors in the last bits, and two
    processes that decide differently wait for each other for ever.
    """
    values = [found]
    broadcast_object_list(values)
    return values[0]


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
        torch.manual_seed(seed + 7919 * number + 104_729 * accelerator.process_index)
        yield rows, batch_or_first(source, indices[rows])
