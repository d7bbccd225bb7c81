"""The training of the two towers.

A step encodes each distinct history and each distinct item of its batch once, over all processes together:
all see all embeddings and the same loss, and the gradients of their parts are added. The result is that of
one process, with all negatives; see `train.shared`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from lora_rec.data.examples import Examples
from lora_rec.data.lists import Lists
from lora_rec.text.collate import BatchSource
from lora_rec.towers.two_tower import TwoTower
from lora_rec.train.checkpoint import Checkpoints
from lora_rec.train.epochs import TrainingResult, run_epochs
from lora_rec.train.gradients import Gradients
from lora_rec.train.projections import Teacher
from lora_rec.train.reading import Stopwatch, TimedSource

__all__ = ["TrainingResult", "train_two_tower"]


def train_two_tower(
    model: TwoTower,
    accelerator: Accelerator,
    *,
    user_source: BatchSource,
    user_texts: NDArray[np.int64],
    item_source: BatchSource,
    examples: Examples,
    known: Lists,
    item_counts: NDArray[np.int64],
    teacher: Teacher,
    start_validation: float,
    validate: Callable[[], float],
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    warmup_share: float,
    max_gradient_norm: float,
    temperature: float,
    popularity_correction: float,
    distillation: float,
    extra_items: int,
    token_budget: int,
    patience: int,
    seed: int,
    checkpoints: Checkpoints | None = None,
) -> TrainingResult:
    """Trains the adapters; at the end the model holds the state that validated best.

    Args:
        model: both towers, on the accelerator's device; the same in every process.
        accelerator: of accelerate; gathers embeddings and adds gradients over processes.
        user_source: distinct texts of histories.
        user_texts: (M,), which of them is the text of each example.
        item_source: texts of the catalogue; text i is that of item i.
        examples: users, histories and next items.
        known: (n_users), items that a user has taken: never that user's negatives.
        item_counts: (N,), training interactions of each item, for the popularity correction.
        teacher: vectors that the embeddings are aligned with.
        start_validation: score of the model as it is given.
        validate: called in every process after each epoch; solves the projections for the adapters as they
            are, and gives a score; higher is better.
        epochs: passes over the examples.
        batch_size: examples in one step, over all processes.
        learning_rate: peak rate of the adapters.
        weight_decay: of AdamW.
        warmup_share: share of the steps with a rising rate.
        max_gradient_norm: longer gradients are cut.
        temperature: of the softmax.
        popularity_correction: see `losses.in_batch_softmax_loss`.
        distillation: weight of `losses.alignment_loss` in 0..1; the softmax over positives has the rest.
        extra_items: random items of the catalogue in each step, so that rare ones keep their scale.
        token_budget: padded tokens in one micro-batch.
        patience: epochs without a better validation before it stops.
        seed: of the order of the examples and of dropout.
        checkpoints: where a run that was stopped goes on from; it is kept there as it trains, after each
            epoch and when it is done, until the caller removes them.

    Raises:
        TrainingError: the loss is not a number, an adapter did not move in the first steps, a process was
            lost, memory does not suffice for the smallest micro-batch, or the checkpoints are of another run
            or cannot be written.
        Interrupted: SIGTERM came; with checkpoints, one was written.
    """
    n_batches = max(1, len(examples) // batch_size)

    def batches(epoch: int) -> list[NDArray[np.int64]]:
        order = np.random.default_rng([seed, epoch]).permutation(len(examples))
        return np.array_split(order, n_batches)

    reading = Stopwatch()
    gradients = Gradients(
        model=model,
        accelerator=accelerator,
        user_source=TimedSource(user_source, reading),
        user_texts=user_texts,
        item_source=TimedSource(item_source, reading),
        examples=examples,
        known=known,
        log_popularity=torch.log(torch.from_numpy(np.maximum(item_counts, 0.5) / item_counts.sum())).float(),
        teacher=teacher,
        learning_rate=learning_rate,
        temperature=temperature,
        popularity_correction=popularity_correction,
        distillation=distillation,
        extra_items=extra_items,
        seed=seed,
        reading=reading,
    )
    return run_epochs(
        model,
        accelerator,
        batches=batches,
        gradients=gradients,
        start_validation=start_validation,
        validate=validate,
        epochs=epochs,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_share=warmup_share,
        max_gradient_norm=max_gradient_norm,
        token_budget=token_budget,
        patience=patience,
        checkpoints=checkpoints,
        reading=reading,
    )
