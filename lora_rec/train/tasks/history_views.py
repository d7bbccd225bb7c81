"""Contrastive views of a history: cropped, masked, reordered.

Source: Xie et al. 2022, "Contrastive learning for sequential recommendation" (CL4SRec), arXiv 2010.14395.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lora_rec.data.lists import Lists
from lora_rec.text.views import history_view, render_view
from lora_rec.train.tasks.contrast import Tokenize, learn_views, measure_retrieval
from lora_rec.train.tasks.task import Validation, Work


@dataclass(frozen=True, eq=False)
class HistoryTexts:
    """How histories are written."""

    item_texts: Sequence[str]
    length: int
    """Items in a text."""
    newest_first: bool
    mask_text: str
    """Stands for a hidden item."""
    shares: dict[str, float]
    """See `text.views.history_view`."""

    def view(self, history: NDArray[np.int64], generator: np.random.Generator) -> str:
        """Gives one view of a history as a text."""
        view = history_view(history, generator, **self.shares)
        return render_view(view, self.item_texts, mask_text=self.mask_text, newest_first=self.newest_first)


class HistoryViews:
    """Each step draws a stretch of each history, and two views of it."""

    name, measure = "history_views", "retrieval@1"

    def __init__(
        self,
        train: Lists,
        held_out: Lists,
        *,
        texts: HistoryTexts,
        tokenize: Tokenize,
        temperature: float,
    ) -> None:
        """Draws the views of the held-out histories, once.

        Args:
            train: histories to learn from, each of two items and more.
            held_out: histories to measure on, likewise; of each the newest stretch.
            texts: how they are written.
            tokenize: gives token ids.
            temperature: of the loss.
        """
        self.head: nn.Module = nn.Identity()
        self._train, self._texts, self._tokenize = train, texts, tokenize
        self._temperature = temperature
        generator = np.random.default_rng(0)
        newest = [history[-texts.length :] for history in held_out]
        self._held_out = tokenize([texts.view(h, generator) for _ in range(2) for h in newest])
        self.n_examples, self.n_held_out = len(train), len(held_out)

    def learn(
        self,
        work: Work,
        rows: NDArray[np.int64],
        generator: np.random.Generator,
        *,
        weight: float,
        seed: int,
    ) -> float:
        """See `Task.learn`: `losses.contrastive_loss`."""
        parts = []
        for row in rows:
            history = self._train[int(row)]
            length = min(self._texts.length, len(history))
            end = int(generator.integers(length, len(history) + 1))
            parts.append(history[end - length : end])
        views = [self._texts.view(part, generator) for _ in range(2) for part in parts]
        return learn_views(
            work, views, self._tokenize, temperature=self._temperature, weight=weight, seed=seed
        )

    def validate(self, work: Work) -> Validation:
        """See `Task.validate`."""
        return measure_retrieval(work, self._held_out, temperature=self._temperature)
