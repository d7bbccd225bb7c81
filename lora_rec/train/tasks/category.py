"""Text classification: an item's categories from its text, in which they are not written."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lora_rec.text.collate import BatchSource
from lora_rec.train.tasks.pooled import learn_classes, measure_accuracy
from lora_rec.train.tasks.task import Validation, Work


class CategoryClassification:
    """A learned linear map from a text's vector to categories; where a text has several, they share it."""

    name, measure = "category", "accuracy"

    def __init__(
        self,
        source: BatchSource,
        shares: NDArray[np.float32],
        *,
        train: NDArray[np.int64],
        held_out: NDArray[np.int64],
        hidden_size: int,
    ) -> None:
        """Makes the head.

        Args:
            source: n texts.
            shares: (n, C), rows that sum to 1.
            train: which texts to learn from.
            held_out: which to measure on.
            hidden_size: of the vectors.
        """
        self.head: nn.Module = nn.Linear(hidden_size, shares.shape[1])
        self._source, self._shares = source, shares
        self._train, self._held_out = train, held_out
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
        """See `Task.learn`: the mean cross-entropy over the texts."""
        texts = self._train[rows]
        return learn_classes(
            work, self.head, self._source, texts, self._shares[texts], weight=weight, seed=seed
        )

    def validate(self, work: Work) -> Validation:
        """See `Task.validate`."""
        return measure_accuracy(work, self.head, self._source, self._held_out, self._shares[self._held_out])
