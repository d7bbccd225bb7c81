"""Contrastive views of an item: without some of its fields and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lora_rec.text.views import item_view
from lora_rec.train.tasks.contrast import Tokenize, learn_views, measure_retrieval
from lora_rec.train.tasks.task import Validation, Work


@dataclass(frozen=True, eq=False)
class ItemTexts:
    """How items are written."""

    template: str
    fields: Mapping[str, Sequence[str]]
    """Field to one text per item."""
    field_dropout: float
    word_dropout: float

    def view(self, item: int, generator: np.random.Generator) -> str:
        """Gives one view of an item as a text."""
        return item_view(
            self.template,
            {name: texts[item] for name, texts in self.fields.items()},
            generator,
            field_dropout=self.field_dropout,
            word_dropout=self.word_dropout,
        )


class ItemViews:
    """Each step draws two views of each item."""

    name, measure = "item_views", "retrieval@1"

    def __init__(
        self,
        train: NDArray[np.int64],
        held_out: NDArray[np.int64],
        *,
        texts: ItemTexts,
        tokenize: Tokenize,
        temperature: float,
    ) -> None:
        """Draws the views of the held-out items, once.

        Args:
            train: items to learn from.
            held_out: items to measure on.
            texts: how they are written.
            tokenize: gives token ids.
            temperature: of the loss.
        """
        self.head: nn.Module = nn.Identity()
        self._train, self._texts, self._tokenize = train, texts, tokenize
        self._temperature = temperature
        generator = np.random.default_rng(0)
        self._held_out = tokenize([texts.view(int(i), generator) for _ in range(2) for i in held_out])
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
        views = [self._texts.view(int(i), generator) for _ in range(2) for i in self._train[rows]]
        return learn_views(
            work, views, self._tokenize, temperature=self._temperature, weight=weight, seed=seed
        )

    def validate(self, work: Work) -> Validation:
        """See `Task.validate`."""
        return measure_retrieval(work, self._held_out, temperature=self._temperature)
