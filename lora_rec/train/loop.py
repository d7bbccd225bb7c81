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

from lora_rec.data.examples import Examples
from lora_rec.data.lists import Lists
from lora_rec.errors import TrainingError
from lora_rec.text.collate import BatchSource
from lora_rec.towers.two_tower import TwoTower
from lora_rec.train.adalora import build_allocations
from lora_rec.train.learning_check import LearningCheck
from lora_rec.train.losses import alignment_loss, in_batch_softmax_loss
from lora_rec.train.optim import build_optimizer, warmup_cosine
from lora_rec.train.projections import Teacher
from lora_rec.train.shared import backpropagate, shared_leaf, sum_gradients

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochLog:
    """What one epoch did."""

    epoch: int
    loss: float
    validation: float
    seconds: float
    step_seconds: float
    """Median over the optimizer steps."""


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

    Raises:
        TrainingError: the loss is not a number, or an adapter did not move in the first steps.
    """
    trained = model.trained_parameters()
    if not trained:
        logger.info("no tower has anything to train; keeping the frozen towers")
        return TrainingResult(start_validation, start_validation, 0, ())
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
    check = LearningCheck(trained)
    log_popularity = torch.log(torch.from_numpy(np.maximum(item_counts, 0.5) / item_counts.sum())).float()
    n_items = len(item_counts)

    best = _Best(model, start_validation)
    logs, step = [], 0
    logger.info("validation before training: %.4f", start_validation)
    for epoch in range(1, epochs + 1):
        began = time.perf_counter()
        order = np.random.default_rng([seed, epoch]).permutation(len(examples))
        losses, times, n_texts = [], [], 0
        bar = tqdm(
            np.array_split(order, n_batches),
            desc=f"epoch {epoch}/{epochs}",
            disable=not accelerator.is_main_process,
        )
        for rows in bar:
            step += 1
            step_began = time.perf_counter()
            extra = np.random.default_rng([seed, step, 1]).choice(
                n_items, size=min(extra_items, n_items), replace=False
            )
            pairs = _Pairs.of(examples, rows, known, extra)
            passes = {"token_budget": token_budget, "seed": seed * 1_000_003 + step}
            texts, text_of_row = np.unique(user_texts[rows], return_inverse=True)
            users = shared_leaf(accelerator, model.user_tower, user_source, texts, **passes)
            items = shared_leaf(accelerator, model.item_tower, item_source, pairs.items, **passes)
            of_rows = users[torch.from_numpy(text_of_row)]
            softmax = in_batch_softmax_loss(
                of_rows,
                items,
                positive_users=pairs.positive_users.to(users.device),
                positive_items=pairs.positive_items.to(users.device),
                log_popularity=log_popularity[pairs.items].to(users.device),
                known_mask=pairs.known_mask.to(users.device),
                temperature=temperature,
                popularity_correction=popularity_correction,
            )
            distilled = alignment_loss(
                of_rows, torch.from_numpy(teacher.users[rows]).to(users.device)
            ) + alignment_loss(items, torch.from_numpy(teacher.items[pairs.items]).to(users.device))
            loss = (1 - distillation) * softmax + distillation * distilled
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"train: the loss is {loss.item()} at step {step};"
                    f" lower train.learning_rate ({learning_rate:g})"
                    f" or raise train.temperature ({temperature:g})"
                )
            loss.backward()
            backpropagate(accelerator, model.user_tower, user_source, texts, leaf=users, **passes)
            backpropagate(accelerator, model.item_tower, item_source, pairs.items, leaf=items, **passes)
            allocations.add_penalty(accelerator)
            sum_gradients(accelerator, trained.values())
            torch.nn.utils.clip_grad_norm_(trained.values(), max_gradient_norm)
            optimizer.step()
            check.after_step(step, last=step == n_steps)  # before ranks fall: what is cut has learned too
            allocations.after_step(step, accelerator)
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            times.append(time.perf_counter() - step_began)
            n_texts += len(texts) + len(pairs.items)
            bar.set_postfix(
                loss=f"{losses[-1]:.3f}", texts_per_s=f"{n_texts / (time.perf_counter() - began):.0f}"
            )
        score = validate()
        seconds = time.perf_counter() - began
        logs.append(EpochLog(epoch, float(np.mean(losses)), score, seconds, float(np.median(times))))
        logger.info("epoch %d: loss %.4f, validation %.4f", epoch, logs[-1].loss, score)
        # An adapter above its budget is not a result, however well it validates.
        best.offer(score, epoch, eligible=allocations.are_final)
        if epoch - best.last_gain >= patience:
            logger.info("no better validation for %d epochs; stopping", patience)
            break
    if allocations.finish(step, accelerator):
        best.offer(validate(), epoch, eligible=True)
    best.restore()
    if best.epoch == 0:
        logger.warning("no epoch validated better than the frozen towers, which are kept; try another rate")
    return TrainingResult(
        start_validation, best.score, best.epoch, tuple(logs), allocations.ranks_over_time()
    )


class _Best:
    """The state that validated best; the state before training is the first to beat."""

    def __init__(self, model: TwoTower, score: float) -> None:
        self._model = model
        self._state = _copy_state(model.learned_state())
        self.score, self.epoch = score, 0
        self._seen, self.last_gain = score, 0

    def offer(self, score: float, epoch: int, *, eligible: bool) -> None:
        """Keeps the present state if it is the best; one that may not be kept still counts as a gain."""
        if score > self._seen:
            self._seen, self.last_gain = score, epoch
        if eligible and score > self.score:
            self.score, self.epoch, self._state = score, epoch, _copy_state(self._model.learned_state())

    def restore(self) -> None:
        """Puts the best state back."""
        with torch.no_grad():
            for name, tensor in self._model.learned_state().items():
                tensor.copy_(self._state[name])


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The positives of one batch, over its distinct items."""

    items: NDArray[np.int64]
    positive_users: torch.Tensor
    positive_items: torch.Tensor
    known_mask: torch.Tensor
    """True where the user has taken the item at any time in training."""

    @classmethod
    def of(
        cls, examples: Examples, rows: NDArray[np.int64], known: Lists, extra: NDArray[np.int64]
    ) -> _Pairs:
        targets = [examples.targets[int(row)] for row in rows]
        drawn = np.concatenate(targets)
        items, places = np.unique(np.concatenate([drawn, extra]), return_inverse=True)
        positive_items = places[: len(drawn)]
        positive_users = np.repeat(np.arange(len(rows)), [len(t) for t in targets])
        mask = np.stack([np.isin(items, known[int(examples.users[row])], kind="sort") for row in rows])
        mask[positive_users, positive_items] = True
        return cls(items, *(torch.from_numpy(array) for array in (positive_users, positive_items, mask)))


def _copy_state(trained: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trained.items()}
