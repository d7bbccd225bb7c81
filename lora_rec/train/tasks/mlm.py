"""Masked language modelling: what stood where a token is hidden.

Source: Devlin et al. 2019, "BERT", arXiv 1810.04805, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lora_rec.text.collate import TokenizedTexts
from lora_rec.train.tasks.losses import IGNORED
from lora_rec.train.tasks.task import Validation, Work
from lora_rec.train.tasks.tokens import Labelled, learn_tokens, measure_perplexity

MASK, RANDOM = 0.8, 0.1
"""Of the chosen tokens: become the mask token, or any other; the rest stays and is asked for, too."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What masking has to know of a tokenizer."""

    mask_token: int
    special: NDArray[np.int64]
    """Tokens that stand for no text and are never asked for."""
    size: int


def mask_tokens(
    tokens: TokenizedTexts, generator: np.random.Generator, *, vocabulary: Vocabulary, share: float
) -> Labelled:
    """Hides a share of each text's tokens, one at least; those that stand for no text stay.

    Args:
        tokens: each with one token to hide at least.
        generator: of random numbers.
        vocabulary: of the tokenizer.
        share: of the tokens of a text, in 0..1.
    """
    owners = tokens.owners
    places = np.flatnonzero(~np.isin(tokens.ids, vocabulary.special))
    order = places[np.lexsort((generator.random(len(places)), owners[places]))]
    counts = np.bincount(owners[places], minlength=len(tokens))
    wanted = np.maximum(1, np.round(share * counts).astype(np.int64))
    nth = np.arange(len(order)) - (np.cumsum(counts) - counts)[owners[order]]
    chosen = order[nth < wanted[owners[order]]]
    labels = np.full(len(tokens.ids), IGNORED, dtype=np.int64)
    labels[chosen] = tokens.ids[chosen]
    ids, fate = tokens.ids.copy(), generator.random(len(chosen))
    plain = np.setdiff1d(np.arange(vocabulary.size), vocabulary.special)
    others = generator.choice(plain, size=len(chosen))
    ids[chosen] = np.where(fate < MASK, vocabulary.mask_token, ids[chosen])
    is_random = (fate >= MASK) & (fate < MASK + RANDOM)
    ids[chosen] = np.where(is_random, others, ids[chosen])
    return Labelled(TokenizedTexts(ids, tokens.offsets), labels, tokens.offsets)


class MaskedLanguageModelling:
    """Hides tokens anew in every step, so it reads token ids, not the prefix cache."""

    name, measure = "mlm", "perplexity"

    def __init__(
        self,
        train: TokenizedTexts,
        held_out: TokenizedTexts,
        *,
        head: nn.Module,
        vocabulary: Vocabulary,
        masked_share: float,
    ) -> None:
        """Hides the tokens of the held-out texts, once.

        Args:
            train: to learn from; a text in which there is nothing to hide is left out.
            held_out: to measure on, likewise.
            head: from states to logits of tokens.
            vocabulary: of the tokenizer.
            masked_share: of a text's tokens.
        """
        self.head = head
        self._train = _with_text(train, vocabulary)
        self._vocabulary, self._share = vocabulary, masked_share
        self._held_out = mask_tokens(
            _with_text(held_out, vocabulary),
            np.random.default_rng(0),
            vocabulary=vocabulary,
            share=masked_share,
        )
        self.n_examples, self.n_held_out = len(self._train), len(self._held_out.offsets) - 1

    def learn(
        self,
        work: Work,
        rows: NDArray[np.int64],
        generator: np.random.Generator,
        *,
        weight: float,
        seed: int,
    ) -> float:
        """See `Task.learn`: the mean cross-entropy over the hidden tokens."""
        masked = mask_tokens(
            self._train.take(rows), generator, vocabulary=self._vocabulary, share=self._share
        )
        return learn_tokens(work, self.head, masked, np.arange(len(rows)), weight=weight, seed=seed)

    def validate(self, work: Work) -> Validation:
        """See `Task.validate`."""
        return measure_perplexity(work, self.head, self._held_out, np.arange(self.n_held_out))


def _with_text(tokens: TokenizedTexts, vocabulary: Vocabulary) -> TokenizedTexts:
    plain = ~np.isin(tokens.ids, vocabulary.special)
    return tokens.take(np.flatnonzero(np.bincount(tokens.owners, weights=plain, minlength=len(tokens)) > 0))
