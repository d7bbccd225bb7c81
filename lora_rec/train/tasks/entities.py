"""Entity recognition: which tokens are names, and of what kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lora_rec.text.collate import BatchSource
from lora_rec.text.entities import read_tags
from lora_rec.train.shared import count_texts
from lora_rec.train.tasks.losses import IGNORED
from lora_rec.train.tasks.task import Validation, Work
from lora_rec.train.tasks.tokens import Labelled, learn_tokens, summed_loss


class EntityRecognition:
    """A learned map from each token's state to tags, see `text.entities.tag_tokens`."""

    name, measure = "entities", "f1"

    def __init__(
        self,
        source: BatchSource,
        tags: Sequence[Sequence[int]],
        *,
        train: NDArray[np.int64],
        held_out: NDArray[np.int64],
        n_kinds: int,
        hidden_size: int,
    ) -> None:
        """Makes the head.

        Args:
            source: all texts.
            tags: of their tokens; `IGNORED` for those that stand for no text.
            train: which texts to learn from.
            held_out: which to measure on.
            n_kinds: of names.
            hidden_size: of the states.
        """
        self.head: nn.Module = _Tagger(hidden_size, 1 + 2 * n_kinds)
        offsets = np.cumsum([0, *map(len, tags)], dtype=np.int64)
        labels = np.array([tag for row in tags for tag in row], dtype=np.int64)
        self._texts = Labelled(source, labels, offsets)
        # A text may be all characters that the tokenizer drops.
        asked = np.array([any(tag != IGNORED for tag in row) for row in tags], dtype=bool)
        self._train, self._held_out = train[asked[train]], held_out[asked[held_out]]
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
        """See `Task.learn`: the mean cross-entropy over all tokens."""
        return learn_tokens(work, self.head, self._texts, self._train[rows], weight=weight, seed=seed)

    def validate(self, work: Work) -> Validation:
        """See `Task.validate`: a name is found where all of its tokens and its kind are right."""

        def count(states: torch.Tensor, positions: NDArray[np.int64]) -> NDArray[np.float64]:
            labels = self._texts.padded(self._held_out[positions], states.shape[1]).to(states.device)
            loss = float(summed_loss(self.head, states, labels))
            guesses = self.head(states).argmax(dim=-1).cpu().numpy()
            wanted = labels.cpu().numpy()
            found = np.array([loss, float((wanted != IGNORED).sum()), 0, 0, 0])
            for guess, row in zip(guesses, wanted, strict=True):
                right, told = read_tags(row[row != IGNORED]), read_tags(guess[row != IGNORED])
                found[2:] += len(right & told), len(right), len(told)
            return found

        loss, n_tokens, hits, right, told = count_texts(
            work.accelerator,
            work.tower,
            self._texts.source,
            self._held_out,
            count,
            n_numbers=5,
            pooled=False,
            token_budget=work.token_budget,
        )
        return Validation(float(loss / n_tokens), float(f1(hits=hits, right=right, told=told)))


def f1(*, hits: float, right: float, told: float) -> float:
    """Gives the harmonic mean of the shares of names that were found and of guesses that were right.

    >>> f1(hits=1, right=2, told=4) == 2 * (1 / 2) * (1 / 4) / (1 / 2 + 1 / 4)
    True
    """
    return 2 * hits / (right + told) if right + told else 0.0


class _Tagger(nn.Linear):
    """In full precision, whatever the states come in."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return super().forward(states.float())
