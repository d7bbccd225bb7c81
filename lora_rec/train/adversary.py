"""Adversarial training: the states that enter the trained layers are moved towards a higher loss.

A step makes several passes over the same texts, and their gradients are averaged. Between two passes each
text's states are moved along the gradient that they got: by the whole distance (FGM: one plain pass, one with
the states moved), or by parts of it from a random start (FreeLB). A shift is in units of each state's length,
because the states of a decoder's first token are a hundred times as long as the others.

Sources: Miyato et al. 2017, "Adversarial training methods for semi-supervised text classification", arXiv
1605.07725; Zhu et al. 2020, "FreeLB: enhanced adversarial training for natural language understanding", arXiv
1909.11764, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lora_rec.text.collate import TokenBatch

AdversaryName = Literal["none", "fgm", "freelb"]


@dataclass(frozen=True)
class Adversary:
    """How states are moved."""

    name: AdversaryName
    size: float
    """Root mean square over a text's tokens of a shift's length."""
    steps: int
    """Passes of FreeLB."""

    @property
    def n_passes(self) -> int:
        """How often a step goes through its texts."""
        return {"none": 1, "fgm": 2, "freelb": self.steps}[self.name]

    def start(
        self, mask: torch.Tensor, texts: NDArray[np.int64], *, width: int, seed: int
    ) -> torch.Tensor | None:
        """Gives the shift (B, L, H) of the first pass; None without an adversary.

        Args:
            mask: (B, L), 1 for a real token.
            texts: (B,), which texts these are: each has the same start in whatever micro-batch it is.
            width: H.
            seed: of the step.
        """
        if self.name == "none":
            return None
        shift = np.zeros((*mask.shape, width), dtype=np.float32)
        if self.name == "freelb":
            for row, (text, n_tokens) in enumerate(zip(texts, mask.sum(dim=1).tolist(), strict=True)):
                draws = np.random.default_rng([seed, 4, int(text)]).uniform(-1, 1, (n_tokens, width))
                shift[row, :n_tokens] = draws * self.size / width**0.5
        return torch.from_numpy(shift)

    def move(self, shift: torch.Tensor, gradient: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Gives the shift of the next pass.

        Args:
            shift: (B, L, H), of this pass.
            gradient: (B, L, H), of the loss by it.
            mask: (B, L), 1 for a real token.
        """
        longest = self.size * mask.sum(dim=1).float().sqrt()
        lengths = gradient.flatten(1).norm(dim=1).clamp(min=1e-30)
        moved = shift + (longest / (self.n_passes - 1) / lengths)[:, None, None] * gradient
        # A shift that left the ball is drawn back to its surface.
        lengths = moved.flatten(1).norm(dim=1).clamp(min=1e-30)
        return moved * (longest / lengths).clamp(max=1)[:, None, None]


class Shifts:
    """How far the states of each text of a step are moved, from pass to pass."""

    def __init__(self, adversary: Adversary, *, width: int, seed: int) -> None:
        """Starts as the adversary says.

        Args:
            adversary: that moves them.
            width: H, of the states.
            seed: of the step.
        """
        self._adversary, self._width, self._seed = adversary, width, seed
        self._held: dict[int, torch.Tensor] = {}

    def on(self, batch: TokenBatch, texts: NDArray[np.int64]) -> TokenBatch:
        """Gives the batch of these texts (B,) with their shifts, which collect their gradient."""
        if not self._held.keys() >= set(texts.tolist()):
            start = self._adversary.start(batch.attention_mask, texts, width=self._width, seed=self._seed)
            assert start is not None  # shifts are made where there is an adversary
            self._hold(start, batch, texts)
        shift = torch.zeros(*batch.attention_mask.shape, self._width)
        for row, text in enumerate(texts.tolist()):
            held = self._held[text]
            shift[row, : len(held)] = held
        return replace(batch, shift=shift.requires_grad_())

    def move(self, batch: TokenBatch, texts: NDArray[np.int64]) -> None:
        """Moves the shifts of these texts along the gradient that they got."""
        shift = batch.shift
        assert shift is not None  # `on` gave this batch
        assert shift.grad is not None  # the tower has been differentiated
        self._hold(self._adversary.move(shift.detach(), shift.grad, batch.attention_mask), batch, texts)

    def _hold(self, shift: torch.Tensor, batch: TokenBatch, texts: NDArray[np.int64]) -> None:
        lengths = batch.attention_mask.sum(dim=1).tolist()
        self._held |= {
            text: shift[row, :n] for row, (text, n) in enumerate(zip(texts.tolist(), lengths, strict=True))
        }
