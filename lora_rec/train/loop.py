"""The training of the two towers.

A step encodes each distinct history and each distinct item of its batch once, over all processes together:
all see all embeddings and the same loss, and the gradients of their parts are added. The result is that of
one process, with all negatives; see `train.shared`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from lora_rec.text.augment import VariedSource
from lora_rec.towers.two_tower import TwoTower
from lora_rec.train.adversary import Adversary
from lora_rec.train.checkpoint import Checkpoints
from lora_rec.train.epochs import TrainingResult, run_epochs
from lora_rec.train.gradients import Gradients
from lora_rec.train.objectives import Objectives
from lora_rec.train.reading import Stopwatch, TimedSource

__all__ = ["TrainingResult", "train_two_tower"]


def train_two_tower(
    model: TwoTower,
    accelerator: Accelerator,
    *,
    user_source: VariedSource,
    item_source: VariedSource,
    objectives: Objectives,
    adversary: Adversary,
    start_validation: float,
    validate: Callable[[], float],
    mine: Callable[[], NDArray[np.int32]] | None,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    warmup_share: float,
    max_gradient_norm: float,
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
        item_source: texts of the catalogue; text i is that of item i.
        objectives: what is learned from which examples.
        adversary: moves the states that enter the trained layers, or not.
        start_validation: score of the model as it is given.
        validate: called in every process after each epoch; solves the projections for the adapters as they
            are, and gives a score; higher is better.
        mine: called at the start and after each validation; gives (M, C), unknown items that the model now
            ranks high for each example, -1 where there are fewer. None mines nothing.
        epochs: passes over the examples.
        batch_size: examples in one step, over all processes.
        learning_rate: peak rate of the adapters.
        weight_decay: of AdamW.
        warmup_share: share of the steps with a rising rate.
        max_gradient_norm: longer gradients are cut.
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
    if model.adapter_parameters():
        numbers = objectives.first_numbers(model.user_tower.width)
        model.task_numbers.update({n: t.to(model.user_tower.device) for n, t in numbers.items()})
    examples = objectives.material.examples
    n_batches = max(1, -(-len(examples) // batch_size))

    def batches(epoch: int) -> list[NDArray[np.int64]]:
        order = np.random.default_rng([seed, epoch]).permutation(len(examples))
        return np.array_split(order, n_batches)

    reading = Stopwatch()
    gradients = Gradients(
        model=model,
        accelerator=accelerator,
        users=replace(user_source, source=TimedSource(user_source.source, reading)),
        items=replace(item_source, source=TimedSource(item_source.source, reading)),
        objectives=objectives,
        adversary=adversary,
        learning_rate=learning_rate,
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
        mine=mine,
        checkpoints=checkpoints,
        reading=reading,
    )
