"""The loop of every training of towers: steps, epochs, validation, checkpoints, the best state."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from tqdm import tqdm

from lora_rec.errors import TrainingError
from lora_rec.towers.two_tower import Tower
from lora_rec.train.adalora import build_allocations
from lora_rec.train.checkpoint import Checkpoint, Checkpoints
from lora_rec.train.interruption import lost_process, note_sigterm, with_enough_memory
from lora_rec.train.learning_check import LearningCheck
from lora_rec.train.optim import build_optimizer, warmup_cosine
from lora_rec.train.reading import Stopwatch
from lora_rec.train.shared import as_in_main, sum_gradients
from lora_rec.train.state import Best, EpochLog, Learner, Progress, StepLoss, TrainingState, keep

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")


class Trainable(Learner, Protocol):
    """Towers and what learns beside them."""

    @property
    def towers(self) -> Mapping[str, Tower]:
        """The towers by name."""
        ...

    def adapter_parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """Gives the tensors that have to move in the first steps."""
        ...

    def learning_rate_factor(self, name: str) -> float:
        """Gives the factor of the learning rate for one trained tensor."""
        ...


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


def run_epochs(
    model: Trainable,
    accelerator: Accelerator,
    *,
    batches: Callable[[int], Sequence[Batch]],
    gradients: Callable[..., StepLoss],
    start_validation: float,
    validate: Callable[[], float],
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    warmup_share: float,
    max_gradient_norm: float,
    token_budget: int,
    patience: int,
    mine: Callable[[], NDArray[np.int32]] | None = None,
    checkpoints: Checkpoints | None = None,
    reading: Stopwatch | None = None,
) -> TrainingResult:
    """Trains what learns; at the end the model holds the state that validated best.

    Args:
        model: on the accelerator's device; the same in every process.
        accelerator: of accelerate; adds gradients over processes.
        batches: the batches of an epoch, from 1; as many in each, and the same whenever it is asked.
        gradients: of a batch, in a step from 1 of the whole run, with a number of padded tokens in one
            micro-batch: leaves the gradients of this process's part. What `mine` gave comes as `mined`.
        start_validation: score of the model as it is given.
        validate: called in every process after each epoch; gives a score; higher is better.
        epochs: at most.
        learning_rate: peak rate.
        weight_decay: of AdamW.
        warmup_share: share of the steps with a rising rate.
        max_gradient_norm: longer gradients are cut.
        token_budget: padded tokens in one micro-batch; halved where memory does not suffice.
        patience: epochs without a better validation before it stops.
        mine: called at the start and after each validation; gives (M, C), unknown items that the model now
            ranks high for each example, -1 where there are fewer. None mines nothing.
        checkpoints: where a run that was stopped goes on from; it is kept there as it trains, after each
            epoch and when it is done, until the caller removes them.
        reading: adds up the time of a step that goes into making its batch; the log says which share it is.

    Raises:
        TrainingError: the loss is not a number, an adapter did not move in the first steps, a process was
            lost, memory does not suffice for the smallest micro-batch, or the checkpoints are of another run
            or cannot be written.
        Interrupted: SIGTERM came; with checkpoints, one was written.
    """
    reading = reading or Stopwatch()
    adapters, trained = model.adapter_parameters(), model.trained_parameters()
    if not adapters:
        logger.info("no tower has anything to train; keeping the frozen towers")
        return TrainingResult(start_validation, start_validation, 0, ())
    optimizer = build_optimizer(
        trained,
        factor=model.learning_rate_factor,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
    )
    n_batches = len(batches(1))
    n_steps = epochs * n_batches
    schedule = warmup_cosine(optimizer, n_steps=n_steps, warmup_share=warmup_share)
    allocations = build_allocations(model.towers, n_steps=n_steps)
    start_validation = as_in_main(start_validation)
    best, progress = Best(model, start_validation), Progress(token_budget)
    state = TrainingState(model, optimizer, schedule, allocations, best, progress)
    if checkpoints is not None and (found := _load_alike(checkpoints, accelerator)) is not None:
        state.load(found)
    elif mine is not None:
        state.mined = as_in_main(mine())
    check = LearningCheck(adapters, optimizer)
    logger.info("validation before training: %.4f", start_validation)
    with ends_in_evaluation(model.towers), note_sigterm() as stop, lost_process(accelerator, progress):
        while progress.epoch <= epochs and not progress.is_done:
            if progress.epoch - 1 - best.last_gain >= patience:
                logger.info("no better validation for %d epochs; stopping", patience)
                break
            began = time.perf_counter() - progress.seconds
            bar = tqdm(
                batches(progress.epoch)[progress.batch :],
                desc=f"epoch {progress.epoch}/{epochs}",
                initial=progress.batch,
                total=n_batches,
                disable=not accelerator.is_main_process,
            )
            n_texts, here = 0, time.perf_counter()
            for batch in bar:
                step_began = time.perf_counter()
                step = progress.step + 1
                mined = {} if state.mined is None else {"mined": state.mined}
                done = with_enough_memory(
                    lambda budget: gradients(batch, step, budget, **mined),  # noqa: B023  # called at once
                    trained.values(),
                    progress,
                    accelerator,
                )
                allocations.add_penalty(accelerator)
                sum_gradients(accelerator, trained.values())
                torch.nn.utils.clip_grad_norm_(trained.values(), max_gradient_norm)
                optimizer.step()
                check.after_step(step, last=step == n_steps)  # before ranks fall: what is cut has learned too
                allocations.after_step(step, accelerator)
                schedule.step()
                optimizer.zero_grad()
                progress.after_step(
                    done.loss,
                    time.perf_counter() - step_began,
                    time.perf_counter() - began,
                    reading=reading.take(),
                    parts=done.parts,
                )
                n_texts += done.n_texts
                bar.set_postfix(
                    loss=f"{done.loss:.3f}", texts_per_s=f"{n_texts / (time.perf_counter() - here):.0f}"
                )
                keep(state, checkpoints, stop, accelerator)
            keep(state, checkpoints, stop, accelerator, now=True)  # launchers kill 30 s after SIGTERM
            score = as_in_main(validate())
            log = progress.close_epoch(score, time.perf_counter() - began)
            parts = "".join(f", {name} {value:.4f}" for name, value in log.parts.items())
            outside = f"; {log.outside:.1%} of the time went into making batches" if log.outside else ""
            logger.info(
                "epoch %d: loss %.4f%s, validation %.4f%s", log.epoch, log.loss, parts, score, outside
            )
            state.mined = None if mine is None else as_in_main(mine())
            # An adapter above its budget is not a result, however well it validates.
            best.offer(score, log.epoch, eligible=allocations.are_final)
            keep(state, checkpoints, stop, accelerator, now=True)
        if not progress.is_done:
            if allocations.finish(progress.step, accelerator):
                best.offer(as_in_main(validate()), len(progress.logs), eligible=True)
            best.restore()
            progress.is_done = True
            keep(state, checkpoints, stop, accelerator, now=True)
    if best.epoch == 0:
        logger.warning("no epoch validated better than the start, which is kept; try another rate")
    return TrainingResult(
        start_validation, best.score, best.epoch, tuple(progress.logs), allocations.ranks_over_time()
    )


@contextmanager
def ends_in_evaluation(towers: Mapping[str, Tower]) -> Iterator[None]:
    """Switches the adapters' dropout off at the end, whatever that is."""
    try:
        yield
    finally:
        for tower in towers.values():
            tower.eval()


def _load_alike(checkpoints: Checkpoints, accelerator: Accelerator) -> Checkpoint | None:
    """Gives the newest checkpoint, and sees to it that every process found the same one.

    Raises:
        TrainingError: see `Checkpoints.load`; or some machines do not see what the first one wrote.
    """
    found = checkpoints.load()
    step = torch.tensor([-1 if found is None else found.step], device=accelerator.device)
    steps = accelerator.gather(step).flatten().tolist()
    if len(set(steps)) > 1:
        told = ", ".join("none" if step < 0 else f"step {step}" for step in steps)
        raise TrainingError(
            f"{checkpoints.folder}: the processes found different checkpoints there ({told}); give output a"
            " place that all machines share, or copy the folder to each; checkpoint.resume=false starts anew"
        )
    return found
