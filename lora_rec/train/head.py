"""Trains the sequence part of the ranking head on exported vectors; minutes at most, on one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from lora_rec.data.lists import Lists
from lora_rec.errors import TrainingError
from lora_rec.train.sequence import SequenceHead

_Arrays = dict[str, NDArray[np.float32]]
_Ints = NDArray[np.int64]
WARMUP_SHARE = 0.1
BATCHES_SORTED = 16  # windows of so many batches are sorted by length together
EXAMPLE_SHARE = 0.5  # windows with a user text, beside those without: each teaches one position only
VALIDATIONS = 10


@dataclass(frozen=True, eq=False)
class HeadExamples:
    """Points whose user text vector is known: they teach the head to use it."""

    histories: Lists
    """(M), oldest first."""
    targets: _Ints
    """(M,), the next item."""
    user_embeddings: NDArray[np.float32]
    """(M, D)"""


@dataclass(frozen=True, eq=False)
class Windows:
    """Stretches of flat item ids: all but the last are seen, and each is a target after those before it."""

    values: _Ints
    begins: _Ints
    ends: _Ints
    """(n,), after the last target."""
    text_rows: _Ints
    """(n,), row of the user text vector, which is for the last target alone; -1 where there is none."""
    is_repeat: NDArray[np.bool_]
    """One per value: the user had that item before. No list shows it, so it is seen and not asked for."""


def train_sequence_head(
    head: SequenceHead,
    *,
    histories: Lists,
    examples: HeadExamples | None,
    validate: Callable[[_Arrays], float],
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    show_progress: bool = False,
) -> _Arrays:
    """Trains at every position of every history and gives the arrays that validated best.

    Args:
        head: untrained.
        histories: (n_users), training items, oldest first.
        examples: points with user text vectors; each epoch draws some of them, beside the histories.
        validate: takes the arrays, ten times in all; higher is better.
        epochs: passes; the rate rises over the first tenth and falls to zero along a cosine.
        batch_size: positions in one step, about.
        learning_rate: peak rate.
        weight_decay: of AdamW.
        seed: of windows, order and dropout.
        show_progress: a bar.

    Raises:
        TrainingError: the loss is not a number.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    head.start_residuals(histories)
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=weight_decay)
    best_score, best = -np.inf, head.to_arrays()
    bar = tqdm(range(epochs), desc="ranking head", disable=not show_progress)
    for epoch in bar:
        windows = cut_windows(histories, examples, length=head.history_length, generator=generator)
        batches = list(draw_batches(windows.ends - windows.begins, batch_size, generator))
        head.train()
        total, n_positions = 0.0, 0
        for step, rows in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * _rate_share((epoch + step / len(batches)) / epochs)
            loss, n = _step_loss(head, windows, rows, examples)
            if not n:
                continue  # all that these users took then they had before
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"head: the loss is {loss.item()}; lower head.learning_rate ({learning_rate:g})"
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            total, n_positions = total + loss.item() * n, n_positions + n
        # Ten times at even distances, the last time at the end.
        if (epoch + 1) * VALIDATIONS // epochs > epoch * VALIDATIONS // epochs:
            arrays = head.to_arrays()
            score = validate(arrays)
            if score > best_score:
                best_score, best = score, arrays
            bar.set_postfix(loss=f"{total / max(1, n_positions):.3f}", validation=f"{score:.4f}")
    return best


def _rate_share(done: float) -> float:
    """Gives the share of the peak rate at a share of the training."""
    if done < WARMUP_SHARE:
        return 0.04 + 0.96 * done / WARMUP_SHARE
    return float(0.5 + 0.5 * np.cos(np.pi * (done - WARMUP_SHARE) / (1 - WARMUP_SHARE)))


def cut_windows(
    histories: Lists, examples: HeadExamples | None, *, length: int, generator: np.random.Generator
) -> Windows:
    """Cuts each history into windows of length + 1 targets, the first shorter, and draws examples.

    Every item of a history is in one window as a target, so an epoch takes as long as there are interactions;
    it counts the first time that the user takes it.
    """
    phases = generator.integers(1, length + 2, size=len(histories))
    # A history that one window holds is not cut.
    phases = np.where(histories.counts <= length + 1, length + 1, phases)
    n_windows = 1 + np.maximum(0, -(-(histories.counts - phases) // (length + 1)))
    users = np.repeat(np.arange(len(histories)), n_windows)
    number = np.arange(len(users)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    starts, stops = histories.offsets[:-1][users], histories.offsets[1:][users]
    begins = np.where(number == 0, starts, starts + phases[users] + (number - 1) * (length + 1))
    ends = np.minimum(starts + phases[users] + number * (length + 1), stops)
    full = ends > begins
    begins, ends = begins[full], ends[full]
    values, text_rows, is_repeat = histories.values, np.full(len(begins), -1), histories.repeats()
    if examples is not None:
        n_drawn = min(len(examples.targets), 1 + int(EXAMPLE_SHARE * len(begins)))
        drawn = generator.permutation(len(examples.targets))[:n_drawn]
        joined = Lists.from_arrays(
            np.append(history[-length:], target)
            for history, target in zip(examples.histories.take(drawn), examples.targets[drawn], strict=True)
        )
        begins = np.concatenate([begins, joined.offsets[:-1] + len(values)])
        ends = np.concatenate([ends, joined.offsets[1:] + len(values)])
        text_rows = np.concatenate([text_rows, drawn])
        values = np.concatenate([values, joined.values])
        is_repeat = np.concatenate([is_repeat, joined.repeats()])
    return Windows(values, begins, ends, text_rows, is_repeat)


def draw_batches(lengths: _Ints, batch_size: int, generator: np.random.Generator) -> Iterator[_Ints]:
    """Gives rows in batches of about `batch_size` positions, rows of like length together."""
    order = generator.permutation(len(lengths))
    n_chunks = max(1, int(lengths.sum()) // (batch_size * BATCHES_SORTED))
    batches: list[_Ints] = []
    for chunk in np.array_split(order, n_chunks):
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        before = np.cumsum(lengths[chunk]) - lengths[chunk]
        batches += np.split(chunk, np.flatnonzero(np.diff(before // batch_size)) + 1)
    return (batches[i] for i in generator.permutation(len(batches)))


def _step_loss(
    head: SequenceHead, windows: Windows, rows: _Ints, examples: HeadExamples | None
) -> tuple[torch.Tensor, int]:
    """Gives the loss of some windows and its number of positions."""
    begins, ends, text_rows = windows.begins[rows], windows.ends[rows], windows.text_rows[rows]
    places = np.arange(int((ends - begins).max()))
    flat = begins[:, None] + places
    inside = flat < ends[:, None]
    items_at = torch.from_numpy(np.where(inside, windows.values[np.where(inside, flat, 0)], 0))
    counts = ends - begins - 1
    with_text = text_rows >= 0
    text = None
    if examples is not None and with_text.any():
        width = head.user_width
        given = np.zeros((len(rows), width + 1), dtype=np.float32)
        given[with_text, :width], given[with_text, width] = examples.user_embeddings[text_rows[with_text]], 1
        text = torch.from_numpy(given)
    # The text of a user tells of all items but the last target, so the others are not asked for.
    asked = inside & (~with_text[:, None] | (places == counts[:, None]))
    asked &= ~windows.is_repeat[np.where(inside, flat, 0)]
    if not asked.any():
        return torch.zeros((), requires_grad=True), 0
    items = head.item_inputs()
    users = head.states(items, items_at[:, :-1], counts=torch.from_numpy(counts), user_text=text)
    places_asked = torch.from_numpy(asked)
    return head.loss(items, users[places_asked], items_at[places_asked]), int(asked.sum())
