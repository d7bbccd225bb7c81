"""The training loop of the two towers.

A step encodes each distinct history and each distinct item of its batch once, over all processes together:
all see all embeddings and the same loss, and the gradients of their parts are added. The result is that of
one process, with all negatives; see `train.shared`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from tqdm import tqdm

from lora_rec.text.augment import VariedSource
from lora_rec.towers.two_tower import TwoTower
from lora_rec.train.adalora import build_allocations
from lora_rec.train.adversary import Adversary
from lora_rec.train.checkpoint import Checkpoints
from lora_rec.train.gradients import Gradients
from lora_rec.train.interruption import lost_process, note_sigterm
from lora_rec.train.learning_check import LearningCheck
from lora_rec.train.objectives import Objectives
from lora_rec.train.optim import build_optimizer, warmup_cosine
from lora_rec.train.shared import sum_gradients
from lora_rec.train.state import Best, EpochLog, Progress, TrainingState, keep

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """What training did; the model holds the best state."""

    start_validation: float
    best_validation: float
    best_epoch: int
    """0 when no epoch beat the start."""
    epochs: tuple[EpochLog, ...]
    ranks: dict[str, list[tuple[int, dict[str, int]]]] = field(default_factory=dict)
    """Of AdaLoRA: tower to steps, each with the ranks that the modules had left."""


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
    adapters = model.adapter_parameters()
    if not adapters:
        logger.info("no tower has anything to train; keeping the frozen towers")
        return TrainingResult(start_validation, start_validation, 0, ())
    numbers = objectives.first_numbers(model.user_tower.width)
    model.task_numbers.update({n: t.to(model.user_tower.device) for n, t in numbers.items()})
    trained, examples = model.trained_parameters(), objectives.material.examples
    optimizer = build_optimizer(
        trained,
        factor=model.learning_rate_factor,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
    )
    n_batches = max(1, len(examples) // batch_size)
    n_steps = epochs * n_batches
    schedule = warmup_cosine(optimizer, n_steps=n_steps, warmup_share=warmup_share)
    allocations = build_allocations(model, n_steps=n_steps)
    gradients = Gradients(
        model=model,
        accelerator=accelerator,
        users=user_source,
        items=item_source,
        objectives=objectives,
        adversary=adversary,
        learning_rate=learning_rate,
        seed=seed,
    )
    best, progress = Best(model, start_validation), Progress(token_budget)
    state = TrainingState(model, optimizer, schedule, allocations, best, progress)
    if checkpoints is not None and (kept := checkpoints.load()) is not None:
        state.load(kept)
    elif mine is not None:
        state.mined = mine()
    check = LearningCheck(adapters)
    logger.info("validation before training: %.4f", start_validation)
    with note_sigterm() as stop, lost_process(accelerator, progress):
        while progress.epoch <= epochs and not progress.is_done:
            if progress.epoch - 1 - best.last_gain >= patience:
                logger.info("no better validation for %d epochs; stopping", patience)
                break
            began = time.perf_counter() - progress.seconds
            order = np.random.default_rng([seed, progress.epoch]).permutation(len(examples))
            bar = tqdm(
                np.array_split(order, n_batches)[progress.batch :],
                desc=f"epoch {progress.epoch}/{epochs}",
                initial=progress.batch,
                total=n_batches,
                disable=not accelerator.is_main_process,
            )
            n_texts, here = 0, time.perf_counter()
            for rows in bar:
                step_began = time.perf_counter()
                step = progress.step + 1
                found = gradients.with_enough_memory(rows, step, progress, state.mined)
                allocations.add_penalty(accelerator)
                for number in model.task_numbers.values():  # every process has their whole gradient
                    number.grad = None if number.grad is None else number.grad / accelerator.num_processes
                sum_gradients(accelerator, trained.values())
                torch.nn.utils.clip_grad_norm_(trained.values(), max_gradient_norm)
                optimizer.step()
                check.after_step(step, last=step == n_steps)  # before ranks fall: what is cut has learned too
                allocations.after_step(step, accelerator)
                schedule.step()
                optimizer.zero_grad()
                progress.after_step(
                    found.loss,
                    time.perf_counter() - step_began,
                    time.perf_counter() - began,
                    parts=found.parts,
                )
                n_texts += found.n_texts
                bar.set_postfix(
                    loss=f"{found.loss:.3f}", texts_per_s=f"{n_texts / (time.perf_counter() - here):.0f}"
                )
                keep(state, checkpoints, stop, accelerator)
            score = validate()
            log = progress.close_epoch(score, time.perf_counter() - began)
            parts = ", ".join(f"{name} {value:.4f}" for name, value in log.parts.items())
            logger.info("epoch %d: loss %.4f (%s), validation %.4f", log.epoch, log.loss, parts, score)
            state.mined = None if mine is None else mine()
            # An adapter above its budget is not a result, however well it validates.
            best.offer(score, log.epoch, eligible=allocations.are_final)
            keep(state, checkpoints, stop, accelerator, now=True)
        if not progress.is_done:
            if allocations.finish(progress.step, accelerator):
                best.offer(validate(), len(progress.logs), eligible=True)
            best.restore()
            progress.is_done = True
            keep(state, checkpoints, stop, accelerator, now=True)
    if best.epoch == 0:
        logger.warning("no epoch validated better than the frozen towers, which are kept; try another rate")
    return TrainingResult(
        start_validation, best.score, best.epoch, tuple(progress.logs), allocations.ranks_over_time()
    )
