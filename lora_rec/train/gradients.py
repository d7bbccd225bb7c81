"""The gradients of one step, from a batch of examples to the adapters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from lora_rec.data.examples import Examples
from lora_rec.data.lists import Lists
from lora_rec.errors import TrainingError
from lora_rec.text.collate import BatchSource
from lora_rec.towers.two_tower import TwoTower
from lora_rec.train.losses import alignment_loss, in_batch_softmax_loss
from lora_rec.train.projections import Teacher
from lora_rec.train.reading import Stopwatch
from lora_rec.train.shared import backpropagate, shared_leaf


@dataclass(frozen=True, eq=False)
class Gradients:
    """Computes the gradients of one step, from the examples to the adapters."""

    model: TwoTower
    accelerator: Accelerator
    user_source: BatchSource
    user_texts: NDArray[np.int64]
    item_source: BatchSource
    examples: Examples
    known: Lists
    log_popularity: torch.Tensor
    teacher: Teacher
    learning_rate: float
    temperature: float
    popularity_correction: float
    distillation: float
    extra_items: int
    seed: int
    reading: Stopwatch
    """Of the time outside of the model."""

    def __call__(self, rows: NDArray[np.int64], step: int, token_budget: int) -> tuple[float, int]:
        """Leaves the gradients of this process's texts in the adapters."""
        model, accelerator = self.model, self.accelerator
        n_items = len(self.log_popularity)
        extra = np.random.default_rng([self.seed, step, 1]).choice(
            n_items, size=min(self.extra_items, n_items), replace=False
        )
        with self.reading:
            pairs = _Pairs.of(self.examples, rows, self.known, extra)
        passes = {"token_budget": token_budget, "seed": self.seed * 1_000_003 + step}
        texts, text_of_row = np.unique(self.user_texts[rows], return_inverse=True)
        users = shared_leaf(accelerator, model.user_tower, self.user_source, texts, **passes)
        items = shared_leaf(accelerator, model.item_tower, self.item_source, pairs.items, **passes)
        of_rows = users[torch.from_numpy(text_of_row)]
        softmax = in_batch_softmax_loss(
            of_rows,
            items,
            positive_users=pairs.positive_users.to(users.device),
            positive_items=pairs.positive_items.to(users.device),
            log_popularity=self.log_popularity[pairs.items].to(users.device),
            known_mask=pairs.known_mask.to(users.device),
            temperature=self.temperature,
            popularity_correction=self.popularity_correction,
        )
        distilled = alignment_loss(
            of_rows, torch.from_numpy(self.teacher.users[rows]).to(users.device)
        ) + alignment_loss(items, torch.from_numpy(self.teacher.items[pairs.items]).to(users.device))
        loss = (1 - self.distillation) * softmax + self.distillation * distilled
        if not torch.isfinite(loss):
            raise TrainingError(
                f"train: the loss is {loss.item()} at step {step};"
                f" lower train.learning_rate ({self.learning_rate:g})"
                f" or raise train.temperature ({self.temperature:g})"
            )
        loss.backward()
        backpropagate(accelerator, model.user_tower, self.user_source, texts, leaf=users, **passes)
        backpropagate(accelerator, model.item_tower, self.item_source, pairs.items, leaf=items, **passes)
        return loss.item(), len(texts) + len(pairs.items)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The positives of one batch, over its distinct items."""

    items: NDArray[np.int64]
    positive_users: torch.Tensor
    positive_items: torch.Tensor
    known_mask: torch.Tensor
    """True where the user has taken the item at any time in training."""

    @classmethod
    def of(
        cls, examples: Examples, rows: NDArray[np.int64], known: Lists, extra: NDArray[np.int64]
    ) -> _Pairs:
        targets = [examples.targets[int(row)] for row in rows]
        drawn = np.concatenate(targets)
        items, places = np.unique(np.concatenate([drawn, extra]), return_inverse=True)
        positive_items = places[: len(drawn)]
        positive_users = np.repeat(np.arange(len(rows)), [len(t) for t in targets])
        mask = np.stack([np.isin(items, known[int(examples.users[row])], kind="sort") for row in rows])
        mask[positive_users, positive_items] = True
        return cls(items, *(torch.from_numpy(array) for array in (positive_users, positive_items, mask)))
