"""What every task without labels looks like to the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from lora_rec.towers.two_tower import Tower


@dataclass(frozen=True, eq=False)
class Work:
    """With what a task computes."""

    accelerator: Accelerator
    tower: Tower
    token_budget: int
    """Padded tokens in one micro-batch."""


@dataclass(frozen=True)
class Validation:
    """How a task stands on what was held out."""

    loss: float
    """Of the same kind as in training."""
    measure: float
    """See `Task.measure`."""


class Task(Protocol):
    """Something to learn from texts alone.

    What it learns beside the adapter lies in `head`. Random numbers come from the generator that it is given,
    so that a step is the same in every process and after a resume.
    """

    name: str
    measure: str
    """What is told of it: `perplexity`, `accuracy`, `f1` or `retrieval@1`."""
    head: nn.Module

    n_examples: int
    """How many there are to learn from."""
    n_held_out: int
    """How many it is measured on."""

    def learn(
        self,
        work: Work,
        rows: NDArray[np.int64],
        generator: np.random.Generator,
        *,
        weight: float,
        seed: int,
    ) -> float:
        """Leaves the gradients of this process's part of a batch, times the weight; gives the whole's loss.

        Args:
            work: with what.
            rows: examples in 0..n_examples-1.
            generator: the same in all processes.
            weight: of the task.
            seed: of dropout.
        """
        ...

    def validate(self, work: Work) -> Validation:
        """Measures the task on what was held out; the same in every process and whenever it is asked."""
        ...
