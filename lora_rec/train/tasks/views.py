"""Contrastive views: two texts that say the same thing differently have near vectors.

Of a history the views are cropped, masked and reordered (Xie et al. 2022, "Contrastive learning for
sequential recommendation", CL4SRec, arXiv 2010.14395), of an item they lack some fields and words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import normalize

from lora_rec.data.lists import Lists
from lora_rec.text.collate import TokenizedTexts
from lora_rec.text.views import history_view, item_view, render_view
from lora_rec.train.shared import SharedPass, shared_states
from lora_rec.train.tasks.losses import contrastive_loss
from lora_rec.train.tasks.task import Validation, Work

BLOCK = 64
"""Views among which a held-out one looks for its partner."""


class Viewed(Protocol):
    """Things of which two views each can be drawn."""

    def __len__(self) -> int: ...

    def draw(self, rows: NDArray[np.int64], generator: np.random.Generator) -> list[str]:
        """Gives 2B texts: one view of each of B things, then the other view of each."""
        ...


@dataclass(frozen=True, eq=False)
class Histories:
    """Histories of two items and more, and how they are written."""

    histories: Lists
    item_texts: Sequence[str]
    length: int
    """Items in a text: a view is one of a stretch of that many, drawn anew each time."""
    newest_first: bool
    mask_text: str
    """Stands for a hidden item."""
    shares: dict[str, float]
    """See `text.views.history_view`."""

    def __len__(self) -> int:
        return len(self.histories)

    def draw(self, rows: NDArray[np.int64], generator: np.random.Generator) -> list[str]:
        """See `Viewed.draw`."""
        stretches = []
        for row in rows:
            history = self.histories[int(row)]
            length = min(self.length, len(history))
            end = int(generator.integers(length, len(history) + 1))
            stretches.append(history[end - length : end])
        return [self._view(stretch, generator) for _ in range(2) for stretch in stretches]

    def _view(self, stretch: NDArray[np.int64], generator: np.random.Generator) -> str:
        view = history_view(stretch, generator, **self.shares)
        return render_view(view, self.item_texts, mask_text=self.mask_text, newest_first=self.newest_first)


@dataclass(frozen=True, eq=False)
class Items:
    """Items, and how they are written."""

    items: NDArray[np.int64]
    template: str
    fields: Mapping[str, Sequence[str]]
    """Field to one text per item of the catalogue."""
    field_dropout: float
    word_dropout: float

    def __len__(self) -> int:
        return len(self.items)

    def draw(self, rows: NDArray[np.int64], generator: np.random.Generator) -> list[str]:
        """See `Viewed.draw`."""
        return [
            item_view(
                self.template,
                {name: texts[item] for name, texts in self.fields.items()},
                generator,
                field_dropout=self.field_dropout,
                word_dropout=self.word_dropout,
            )
            for _ in range(2)
            for item in self.items[rows]
        ]


class ContrastiveViews:
    """Each step draws two views of each thing."""

    measure = "retrieval@1"

    def __init__(
        self,
        name: str,
        train: Viewed,
        held_out: Viewed,
        *,
        tokenize: Callable[[Sequence[str]], TokenizedTexts],
        temperature: float,
    ) -> None:
        """Draws the views that it is measured on, once.

        Args:
            name: of the task.
            train: what to learn from.
            held_out: what to measure on.
            tokenize: gives token ids.
            temperature: of the loss.
        """
        self.name = name
        self.head: nn.Module = nn.Identity()
        self._train, self._tokenize, self._temperature = train, tokenize, temperature
        self.n_examples, self.n_held_out = len(train), len(held_out)
        self._held_out = tokenize(held_out.draw(np.arange(self.n_held_out), np.random.default_rng(0)))

    def learn(
        self,
        work: Work,
        rows: NDArray[np.int64],
        generator: np.random.Generator,
        *,
        weight: float,
        seed: int,
    ) -> float:
        """See `Task.learn`: `losses.contrastive_loss` of the tower's vectors."""
        views = np.array(self._train.draw(rows, generator), dtype=object)
        distinct, numbers = np.unique(views, return_inverse=True)
        source, indices = self._tokenize(distinct.tolist()), np.arange(len(distinct))
        encoded = SharedPass(
            work.accelerator, work.tower, source, indices, token_budget=work.token_budget, seed=seed
        )
        loss = self._loss(encoded.leaf[torch.from_numpy(numbers)], numbers)
        (weight * loss).backward()
        encoded.backward()
        return loss.item()

    def validate(self, work: Work) -> Validation:
        """See `Task.validate`: the mean loss in blocks, and how often the nearest view is the partner."""
        source = self._held_out
        states = shared_states(work.accelerator, work.tower, source, token_budget=work.token_budget)
        vectors = normalize(torch.from_numpy(states), dim=1)
        n = len(vectors) // 2
        found, losses = 0, []
        for begin in range(0, n, BLOCK):
            rows = np.arange(begin, min(begin + BLOCK, n))
            both = np.concatenate([rows, n + rows])
            found += int(
                ((vectors[rows] @ vectors[n + rows].T).argmax(dim=1) == torch.arange(len(rows))).sum()
            )
            numbers = np.unique([source[int(i)].tobytes() for i in both], return_inverse=True)[1]
            losses += [float(self._loss(vectors[both], numbers))] * len(rows)
        return Validation(float(np.mean(losses)), found / n)

    def _loss(self, vectors: torch.Tensor, numbers: NDArray[np.int64]) -> torch.Tensor:
        same = torch.from_numpy(numbers[:, None] == numbers[None, :]).to(vectors.device)
        n = len(vectors) // 2
        return contrastive_loss(vectors[:n], vectors[n:], same=same, temperature=self._temperature)
