"""Several tasks as one: batches of each, and the sum of their weighted losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from lora_rec.errors import TrainingError
from lora_rec.towers.two_tower import Tower
from lora_rec.train.state import StepLoss
from lora_rec.train.tasks.task import Task, Validation, Work

Rows = tuple[NDArray[np.int64], ...]
"""Examples of each task in one step."""


class OneTower(nn.Module):
    """A tower, and what the tasks learn beside its adapter."""

    def __init__(self, tower: Tower, tasks: Sequence[Task]) -> None:
        """Puts the heads where the tower lies."""
        super().__init__()
        self.tower = tower
        self.heads = nn.ModuleDict({task.name: task.head.to(tower.device) for task in tasks})

    @property
    def towers(self) -> dict[str, Tower]:
        """The tower by its name."""
        return {"tower": self.tower}

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Gives the tensors of the adapter and the heads by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """Gives the tensors that have to move in the first steps: all that learn."""
        return self.trained_parameters()

    def learned_state(self) -> dict[str, torch.Tensor]:
        """Gives all that differs between two states of training."""
        return dict(self.trained_parameters())

    def learning_rate_factor(self, name: str) -> float:
        """Gives the factor of the learning rate for one trained tensor."""
        return self.tower.adapter.learning_rate_factor(name) if name.startswith("tower.") else 1.0


@dataclass(frozen=True, eq=False)
class Objective:
    """The tasks of a run."""

    tasks: Sequence[Task]
    weights: Mapping[str, float]
    """By the tasks' names."""
    accelerator: Accelerator
    tower: Tower
    batch_size: int
    """Examples of each task in one step."""
    learning_rate: float
    """Named in errors."""
    token_budget: int
    """For validation."""
    seed: int

    def batches(self, epoch: int) -> list[Rows]:
        """Gives the steps of an epoch: one pass over the task that needs the most.

        The others go round, in another order each time; where they stand follows from the epoch alone.
        """
        n_batches = max(self._n_own(task) for task in self.tasks)
        first = (epoch - 1) * n_batches
        columns = []
        for number, task in enumerate(self.tasks):
            own = self._n_own(task)
            rounds = range(first // own, (first + n_batches - 1) // own + 1)
            parts = [part for around in rounds for part in self._order(task, number, around)]
            columns.append(parts[first % own : first % own + n_batches])
        return list(zip(*columns, strict=True))

    def _n_own(self, task: Task) -> int:
        return -(-task.n_examples // self.batch_size)

    def _order(self, task: Task, number: int, around: int) -> list[NDArray[np.int64]]:
        order = np.random.default_rng([self.seed, number, around]).permutation(task.n_examples)
        return np.array_split(order, self._n_own(task))

    def gradients(self, batch: Rows, step: int, token_budget: int) -> StepLoss:
        """Leaves the gradients of this process's part of a step.

        Raises:
            TrainingError: the loss of a task is not a number.
        """
        work = Work(self.accelerator, self.tower, token_budget)
        total, parts = 0.0, {}
        for number, (task, rows) in enumerate(zip(self.tasks, batch, strict=True)):
            weight = self.weights[task.name]
            generator = np.random.default_rng([self.seed, step, number, 1])
            seed = (self.seed * 1_000_003 + step) * len(self.tasks) + number
            loss = task.learn(work, rows, generator, weight=weight, seed=seed)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"train: the loss of {task.name} is {loss} at step {step}; lower train.learning_rate"
                    f" ({self.learning_rate:g})"
                )
            total, parts[task.name] = total + weight * loss, loss
        return StepLoss(total, parts, sum(map(len, batch)))

    def validate(self) -> dict[str, Validation]:
        """Measures every task on what was held out."""
        work = Work(self.accelerator, self.tower, self.token_budget)
        with torch.no_grad():
            return {task.name: task.validate(work) for task in self.tasks}

    def score(self, found: Mapping[str, Validation]) -> float:
        """Gives one number, higher is better: the held-out value of what training lowers, negated."""
        return -sum(self.weights[name] * validation.loss for name, validation in found.items())
