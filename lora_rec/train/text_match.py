"""Learns from histories alone which texts are read by the same users; an epoch takes seconds on one core.

Items of a history are held out and told, by the attention of `rank.candidates` over the others, from the
items held out of other histories. Popular items stand among these as often as they were read, so what is
learned is the match and not the popularity, which is another one tomorrow. The lists that were shown are
left to `train.candidates`: on MIND, where they are few, learning the projection from them too made the next
day's order worse (validation AUC .660 without, .656 to .644 with them).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from lora_rec.data.lists import Lists
from lora_rec.errors import DataError, TrainingError
from lora_rec.rank.candidates import CandidateScorer, project, unit_rows

_Ints = NDArray[np.int64]
HISTORIES_AT_ONCE = 48
ITEMS_DRAWN = 80
"""At most so many items of a history take part in an epoch, so that no user decides alone."""
HELD_OUT_SHARE, MOST_HELD_OUT = 0.25, 16
WARMUP_STEPS = 20
START_SHARPNESS, START_WEIGHT = 3.0, 15.0
NUMBER_RATE = 0.02
"""Learning rate of sharpness and weight, which have far to go."""


class TextMatch(nn.Module):
    """The projection, and two numbers of the attention; `rank.candidates` says what it computes."""

    def __init__(self, texts: torch.Tensor, *, width: int) -> None:
        """Starts at the leading principal axes, where cosines are nearly those of the texts themselves.

        Args:
            texts: (N, D), centred, unit length.
            width: W.
        """
        super().__init__()
        _, axes = torch.linalg.eigh((texts.T @ texts).double())
        self.projection = nn.Parameter(axes.flip(1)[:, :width].float().contiguous())
        self.sharpness = nn.Parameter(torch.tensor(START_SHARPNESS))
        self.weight = nn.Parameter(torch.tensor(START_WEIGHT))

    def forward(
        self, texts: torch.Tensor, histories: torch.Tensor, mask: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Gives scores (B, C) of candidates (C,) for histories (B, L), as rows of texts (M, D)."""
        items = functional.normalize(texts @ self.projection, dim=1)
        cosines = torch.einsum("blw,cw->bcl", items[histories], items[candidates])
        logits = (self.sharpness * cosines).masked_fill(~mask[:, None], -torch.inf)
        return self.weight * (logits.softmax(dim=2) * cosines).sum(dim=2)


def train_text_match(
    text_vectors: NDArray[np.float32],
    histories: Lists,
    *,
    width: int = 384,
    history_length: int = 50,
    epochs: int = 6,
    learning_rate: float = 1e-3,
    seed: int = 0,
    show_progress: bool = False,
) -> CandidateScorer:
    """Trains the match of a text with a history; the biases of all items are zero.

    Args:
        text_vectors: (N, D), of all items.
        histories: items that a user took, one list per user.
        width: W, of the projected vectors; at most D is used. On MIND (D = 384) the validation AUC was .677
            with 384 and .674 with 128.
        history_length: most recent items that are seen.
        epochs: passes; the rate falls to zero along a cosine.
        learning_rate: peak rate of Adam.
        seed: of what is held out, and of the order.
        show_progress: a bar.

    Raises:
        DataError: no history has two items, or a vector is not finite.
        TrainingError: the loss is not a number.
    """
    distinct = [np.unique(history, return_index=True) for history in histories]
    # Oldest first again; a repeat would be held out and seen at once.
    usable = [items[np.argsort(first)] for items, first in distinct if len(items) > 1]
    if not usable:
        raise DataError(f"histories: none of {len(histories)} has two items; give what users took before")
    finite = np.isfinite(text_vectors).all(axis=1)
    if not finite.all():
        raise DataError(
            f"text_vectors: the vector of item {np.argmin(finite)} is not finite; check what made it"
        )
    mean = text_vectors.mean(axis=0)
    texts = torch.from_numpy(unit_rows(text_vectors - mean))
    model = TextMatch(texts, width=width)
    generator = np.random.default_rng(seed)
    numbers = [model.sharpness, model.weight]
    optimizer = torch.optim.Adam(
        [{"params": [model.projection], "lr": learning_rate}, {"params": numbers, "lr": NUMBER_RATE}]
    )
    n_steps = epochs * math.ceil(len(usable) / HISTORIES_AT_ONCE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / n_steps)),
    )
    for _ in tqdm(range(epochs), desc="text match", disable=not show_progress):
        order = generator.permutation(len(usable))
        for start in range(0, len(order), HISTORIES_AT_ONCE):
            batch = [usable[row] for row in order[start : start + HISTORIES_AT_ONCE]]
            loss = _batch_loss(model, texts, batch, history_length, generator)
            if not torch.isfinite(loss):
                raise TrainingError(f"text match: the loss is {loss.item()}; lower {learning_rate=:g}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    projection = model.projection.detach().numpy().copy()
    return CandidateScorer(
        project(text_vectors, mean, projection),
        np.zeros(len(text_vectors), dtype=np.float32),
        mean,
        projection,
        sharpness=model.sharpness.item(),
        history_weight=model.weight.item(),
        new_item_bias=0.0,
        history_length=history_length,
    )


def _batch_loss(
    model: TextMatch,
    texts: torch.Tensor,
    batch: list[_Ints],
    history_length: int,
    generator: np.random.Generator,
) -> torch.Tensor:
    """Gives the mean cross-entropy of each held-out item against those of the other histories."""
    parts = [hold_out(history, generator) for history in batch]
    seen = [part[0][-history_length:] for part in parts]
    held_out = [part[1] for part in parts]
    targets = np.concatenate(held_out)
    owners = np.repeat(np.arange(len(batch)), [len(part) for part in held_out])
    # Each distinct text of the batch is projected once.
    used, rows = np.unique(np.concatenate([targets, *seen]), return_inverse=True)
    candidates, places = np.unique(rows[: len(targets)], return_inverse=True)
    counts = np.array([len(part) for part in seen])
    mask = np.arange(counts.max()) < counts[:, None]
    table = np.zeros(mask.shape, dtype=np.int64)
    table[mask] = rows[len(targets) :]
    scores = model(texts[used], torch.from_numpy(table), torch.from_numpy(mask), torch.from_numpy(candidates))
    known = np.stack([np.isin(used[candidates], history) for history in batch])
    others = scores.masked_fill(torch.from_numpy(known), -torch.inf).logsumexp(dim=1)
    positives = scores[torch.from_numpy(owners), torch.from_numpy(places)]
    return (torch.logaddexp(positives, others[torch.from_numpy(owners)]) - positives).mean()


def hold_out(history: _Ints, generator: np.random.Generator) -> tuple[_Ints, _Ints]:
    """Gives the items that are seen, in their order, and those held out; at least one each."""
    if len(history) > ITEMS_DRAWN:
        history = history[np.sort(generator.permutation(len(history))[:ITEMS_DRAWN])]
    held_out = generator.random(len(history)) < HELD_OUT_SHARE
    if held_out.all() or not held_out.any():
        held_out = np.arange(len(history)) == generator.integers(len(history))
    return history[~held_out], generator.permutation(history[held_out])[:MOST_HELD_OUT]
