"""The gradients of one step, from a batch of examples to the adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from lora_rec.errors import TrainingError
from lora_rec.text.augment import VariedSource
from lora_rec.towers.two_tower import Tower, TwoTower
from lora_rec.train.adversary import Adversary, Shifts
from lora_rec.train.objectives import Objectives
from lora_rec.train.reading import Stopwatch
from lora_rec.train.shared import SharedPass
from lora_rec.train.state import StepLoss


class _Side(NamedTuple):
    """One tower and the texts that it reads in a step."""

    tower: Tower
    source: VariedSource
    texts: NDArray[np.int64]
    shifts: Shifts | None


@dataclass(frozen=True, eq=False)
class Gradients:
    """Computes the gradients of one step, from the examples to the adapters."""

    model: TwoTower
    accelerator: Accelerator
    users: VariedSource
    items: VariedSource
    objectives: Objectives
    adversary: Adversary
    learning_rate: float
    seed: int
    reading: Stopwatch
    """Of the time outside of the model."""

    def __call__(
        self, rows: NDArray[np.int64], step: int, token_budget: int, mined: NDArray[np.int32] | None = None
    ) -> StepLoss:
        """Leaves the gradients of this process's texts in the adapters."""
        model, objectives, n_passes = self.model, self.objectives, self.adversary.n_passes
        with self.reading:
            batch = objectives.draw(rows, step, mined).to(model.user_tower.device)
        seed = self.seed * 1_000_003 + step
        sides = []
        for number, (tower, source, texts) in enumerate(
            ((model.user_tower, self.users, batch.texts), (model.item_tower, self.items, batch.items))
        ):
            chosen = source.draw(texts, np.random.default_rng([self.seed, step, 5 + number]))
            shifts = None if n_passes == 1 else Shifts(self.adversary, width=tower.entry_width, seed=seed)
            sides.append(_Side(tower, source, chosen, shifts))
        settings = {"token_budget": token_budget, "seed": seed}
        numbers = dict(model.task_numbers.items())
        found = StepLoss(0.0, dict.fromkeys(objectives.weights, 0.0), len(batch.texts) + len(batch.items))
        for _ in range(n_passes):
            users, items = (
                SharedPass(self.accelerator, s.tower, s.source, s.texts, shifts=s.shifts, **settings)
                for s in sides
            )
            losses = objectives.losses(batch, users.leaf, items.leaf, numbers)
            loss = objectives.combine(losses, numbers) / n_passes
            found = found._replace(
                loss=found.loss + loss.item(),
                parts={name: found.parts[name] + part.item() / n_passes for name, part in losses.items()},
            )
            if not np.isfinite(found.loss):
                raise TrainingError(
                    f"train: the loss is {found.loss} at step {step};"
                    f" lower train.learning_rate ({self.learning_rate:g})"
                    f" or raise train.temperature ({objectives.temperature:g})"
                )
            loss.backward()
            users.backward()
            items.backward()
        for number in numbers.values():  # every process has their whole gradient, and all are added up
            number.grad = None if number.grad is None else number.grad / self.accelerator.num_processes
        return found
