"""Text classification: which classes a text is of, from its vector.

Two tasks are of this kind. One asks for an item's categories, which are not written in the text. The other,
next-sentence prediction, asks of two texts that are read as one whether they follow each other (`nsp`).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lora_rec.text.collate import BatchSource
from lora_rec.train.shared import count_texts, learn_texts
from lora_rec.train.tasks.losses import shared_label_loss
from lora_rec.train.tasks.task import Validation, Work


class TextClassification:
    """A learned linear map from a text's vector to classes; where a text has several, they share it."""

    measure = "accuracy"

    def __init__(
        self,
        name: str,
        source: BatchSource,
        shares: NDArray[np.float32],
        *,
        train: NDArray[np.int64],
        held_out: NDArray[np.int64],
        hidden_size: int,
    ) -> None:
        """Makes the head.

        Args:
            name: of the task.
            source: n texts.
            shares: (n, C), rows that sum to 1: the classes of each text.
            train: which texts to learn from.
            held_out: which to measure on.
            hidden_size: of the vectors.
        """
        self.name = name
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
        wanted = self._wanted(work, texts)

        def loss(states: torch.Tensor, positions: NDArray[np.int64]) -> torch.Tensor:
            own = wanted[torch.from_numpy(positions)]
            return shared_label_loss(self.head(states), own) / len(texts)

        return learn_texts(
            work.accelerator,
            work.tower,
            self._source,
            texts,
            loss,
            pooled=True,
            weight=weight,
            token_budget=work.token_budget,
            seed=seed,
        )

    def validate(self, work: Work) -> Validation:
        """See `Task.validate`: right is a text whose best class is one of its own."""
        texts = self._held_out
        wanted = self._wanted(work, texts)

        def count(states: torch.Tensor, positions: NDArray[np.int64]) -> NDArray[np.float64]:
            own, logits = wanted[torch.from_numpy(positions)], self.head(states)
            right = own.gather(1, logits.argmax(dim=1, keepdim=True)) > 0
            return np.array([float(shared_label_loss(logits, own)), float(right.sum())])

        loss, right = count_texts(
            work.accelerator,
            work.tower,
            self._source,
            texts,
            count,
            n_numbers=2,
            pooled=True,
            token_budget=work.token_budget,
        )
        return Validation(float(loss / len(texts)), float(right / len(texts)))

    def _wanted(self, work: Work, texts: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(self._shares[texts]).to(work.tower.device)
