"""Causal language modelling: each token from those before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lora_rec.text.collate import BatchSource, TokenizedTexts
from lora_rec.train.tasks.losses import IGNORED
from lora_rec.train.tasks.task import Validation, Work
from lora_rec.train.tasks.tokens import Labelled, learn_tokens, measure_perplexity


def next_tokens(tokens: TokenizedTexts) -> NDArray[np.int64]:
    """Gives (tokens), the token after each; `IGNORED` at a text's end.

    >>> next_tokens(TokenizedTexts(np.array([7, 8, 9], np.int32), np.array([0, 2, 3]))).tolist()
    [8, -100, -100]
    """
    labels = np.append(tokens.ids[1:], IGNORED).astype(np.int64)
    labels[tokens.offsets[1:] - 1] = IGNORED
    return labels


class CausalLanguageModelling:
    """Reads the same texts in every epoch, so the prefix cache serves."""

    name, measure = "clm", "perplexity"

    def __init__(
        self,
        tokens: TokenizedTexts,
        source: BatchSource,
        *,
        train: NDArray[np.int64],
        held_out: NDArray[np.int64],
        head: nn.Module,
    ) -> None:
        """Keeps texts of two tokens and more.

        Args:
            tokens: of all texts.
            source: the same texts, as the tower is to read them.
            train: which of them to learn from.
            held_out: which to measure on.
            head: from states to logits of tokens.
        """
        self.head = head
        self._texts = Labelled(source, next_tokens(tokens), tokens.offsets)
        self._train, self._held_out = (part[tokens.lengths[part] > 1] for part in (train, held_out))
        self.n_examples, self.n_held_out = len(self._train), len(self._held_out)

    def learn(
        self,
        work: Work,
        rows: NDArray[np.int64],
        generator: np.random.Generator,
        *,
        weight: float,
        seed: int,
    ) -> float:
        """See `Task.learn`: the mean cross-entropy over all tokens but the first ones."""
        return learn_tokens(work, self.head, self._texts, self._train[rows], weight=weight, seed=seed)

    def validate(self, work: Work) -> Validation:
        """See `Task.validate`."""
        return measure_perplexity(work, self.head, self._texts, self._held_out)
