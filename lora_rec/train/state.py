"""All that changes while the towers train, as tensors and JSON, and back."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from lora_rec.train.adalora import Allocations
from lora_rec.train.checkpoint import Checkpoint, Checkpoints
from lora_rec.train.interruption import Interrupted, StopRequest

_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")


class Learner(Protocol):
    """What has tensors that learn."""

    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Gives the tensors that learn by gradient, by name."""
        ...

    def learned_state(self) -> dict[str, torch.Tensor]:
        """Gives all that differs between two states of training."""
        ...


class StepLoss(NamedTuple):
    """What a step found."""

    loss: float
    parts: Mapping[str, float]
    """The loss of each objective, not weighed."""
    n_texts: int


@dataclass(frozen=True)
class EpochLog:
    """What one epoch did."""

    epoch: int
    loss: float
    validation: float
    seconds: float
    step_seconds: float
    """Median over the optimizer steps."""
    outside: float
    """Share of the steps' time that went into making batches, outside of the model."""
    parts: dict[str, float] = field(default_factory=dict)
    """Mean loss of each objective, not weighed."""


@dataclass
class Progress:
    """Where a run stands."""

    token_budget: int
    """Padded tokens in a micro-batch; halved where memory did not suffice."""
    step: int = 0
    epoch: int = 1
    """The one that runs."""
    batch: int = 0
    """Batches of it that are done."""
    losses: list[float] = field(default_factory=list)
    """Of its steps."""
    times: list[float] = field(default_factory=list)
    """Of its steps, in seconds."""
    reading: float = 0.0
    """Of these, what went into making batches, in seconds."""
    parts: dict[str, float] = field(default_factory=dict)
    """Sums of its steps' losses by objective."""
    seconds: float = 0.0
    """That it took in processes before this one."""
    logs: list[EpochLog] = field(default_factory=list)
    is_done: bool = False
    """Whether the model holds the best state and nothing is left to train."""

    def after_step(
        self, loss: float, step_seconds: float, seconds: float, *, reading: float, parts: Mapping[str, float]
    ) -> None:
        """Counts a step.

        Args:
            loss: of it.
            step_seconds: that it took.
            seconds: that its epoch has taken so far.
            reading: seconds of the step that went into making batches.
            parts: the loss of each objective.
        """
        self.step, self.batch, self.seconds = self.step + 1, self.batch + 1, seconds
        self.parts = {name: self.parts.get(name, 0.0) + value for name, value in parts.items()}
        self.losses.append(loss)
        self.times.append(step_seconds)
        self.reading += reading

    def close_epoch(self, validation: float, seconds: float) -> EpochLog:
        """Logs an epoch and begins the next."""
        loss, median = float(np.mean(self.losses)), float(np.median(self.times))
        outside = self.reading / sum(self.times)
        parts = {name: total / len(self.losses) for name, total in self.parts.items()}
        self.logs.append(EpochLog(self.epoch, loss, validation, seconds, median, outside, parts))
        self.epoch, self.batch, self.losses, self.times = self.epoch + 1, 0, [], []
        self.seconds, self.reading, self.parts = 0.0, 0.0, {}
        return self.logs[-1]

    def to_json(self) -> dict[str, Any]:
        """Gives plain dictionaries."""
        return asdict(self)

    def take(self, tree: Mapping[str, Any]) -> None:
        """Takes up what `to_json` gave; of the two token budgets the smaller one."""
        logs = [EpochLog(**log) for log in tree["logs"]]
        budget = min(self.token_budget, tree["token_budget"])
        self.__dict__.update({**tree, "logs": logs, "token_budget": budget})


class Best:
    """The state that validated best; the state before training is the first to beat."""

    def __init__(self, model: Learner, score: float) -> None:
        """Keeps the model's present state."""
        self._model = model
        self.state = _copy(model.learned_state())
        self.score, self.epoch = score, 0
        self.seen, self.last_gain = score, 0

    def offer(self, score: float, epoch: int, *, eligible: bool) -> None:
        """Keeps the present state if it is the best; one that may not be kept still counts as a gain."""
        if score > self.seen:
            self.seen, self.last_gain = score, epoch
        if eligible and score > self.score:
            self.score, self.epoch, self.state = score, epoch, _copy(self._model.learned_state())

    def restore(self) -> None:
        """Puts the best state back."""
        _put(self.state, self._model.learned_state())


@dataclass(eq=False)
class TrainingState:
    """Everything that a step changes; `load` of what `save` gave makes the next step the same, bit by bit."""

    model: Learner
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    allocations: Allocations
    best: Best
    progress: Progress
    mined: NDArray[np.int32] | None = None
    """(M, C), hard negatives of this epoch; they were found with the adapters as they were at its start."""

    def save(self) -> Checkpoint:
        """Gives a checkpoint.

        The generators are the main process's: each micro-batch seeds its own dropout, so no process ever
        reads what another's generator holds.
        """
        best, schedule = self.best, self.schedule.state_dict()
        tensors = {f"model/{name}": tensor for name, tensor in self.model.learned_state().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in best.state.items()}
        if self.mined is not None:
            tensors["mined"] = torch.from_numpy(self.mined)
        for name, parameter in self.model.trained_parameters().items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = torch.as_tensor(value)
        allocations: dict[str, Any] = {}
        for tower, allocation in self.allocations.towers.items():
            held = allocation.state_dict()
            for kind in _AVERAGES:
                tensors |= {f"{kind}/{tower}/{name}": value for name, value in held.pop(kind).items()}
            allocations[tower] = held
        generators, state = _generators()
        return Checkpoint(
            self.progress.step,
            tensors | generators,
            {
                "progress": self.progress.to_json(),
                "schedule": {k: v for k, v in schedule.items() if k != "lr_lambdas"},
                "best": [best.score, best.epoch, best.seen, best.last_gain],
                "allocations": allocations,
                "generators": state,
            },
        )

    def load(self, checkpoint: Checkpoint) -> None:
        """Takes up what `save` gave."""
        state, tensors = checkpoint.state, checkpoint.tensors
        self.progress.take(state["progress"])
        _put(_under(tensors, "model/"), self.model.learned_state())
        self.mined = tensors["mined"].numpy() if "mined" in tensors else None
        best = self.best
        for name, tensor in _under(tensors, "best/").items():
            best.state[name].copy_(tensor)
        best.score, best.epoch, best.seen, best.last_gain = state["best"]
        for name, parameter in self.model.trained_parameters().items():
            held = {
                path.split("/")[1]: tensor
                for path, tensor in tensors.items()
                if path.startswith("optimizer/") and path.split("/", 2)[2] == name
            }
            # The count of steps stays on the CPU, as AdamW has it.
            if held:
                moved = {k: t if k == "step" else t.to(parameter.device) for k, t in held.items()}
                self.optimizer.state[parameter] = moved
        none = {"lr_lambdas": [None] * len(self.schedule.lr_lambdas)}
        self.schedule.load_state_dict(state["schedule"] | none)
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate
        device = next(iter(self.model.trained_parameters().values())).device
        for tower, allocation in self.allocations.towers.items():
            ranks = state["allocations"][tower]
            averages = {
                kind: {n: t.to(device) for n, t in _under(tensors, f"{kind}/{tower}/").items()}
                for kind in _AVERAGES
            }
            over_time = [(step, found) for step, found in ranks["ranks_over_time"]]
            allocation.load_state_dict(ranks | averages | {"ranks_over_time": over_time})
        _set_generators(tensors, state["generators"])


def keep(
    state: TrainingState,
    checkpoints: Checkpoints | None,
    stop: StopRequest,
    accelerator: Accelerator,
    *,
    now: bool = False,
) -> None:
    """Writes a checkpoint when one is due, and stops the run where that was asked for.

    Args:
        state: of the run, between two steps.
        checkpoints: None keeps nothing.
        stop: whether SIGTERM came.
        accelerator: whose processes stop together.
        now: whether one is due in any case.

    Raises:
        Interrupted: SIGTERM came, and a checkpoint is written.
        TrainingError: it cannot be written.
    """
    stops = stop.anywhere(accelerator)
    if checkpoints is not None and (now or stops or checkpoints.due()):
        checkpoints.save(state.save())
    if stops and not state.progress.is_done:
        done = f"train: stopped by SIGTERM after step {state.progress.step}"
        if checkpoints is None:
            raise Interrupted(f"{done}; no checkpoint was asked for, so the run is lost")
        raise Interrupted(f"{done}; the same command goes on from {checkpoints.folder}")


def _generators() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    kind, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)  # type: ignore[misc]  # noqa: NPY002
    version, numbers, python_gauss = random.getstate()
    tensors = {"generator/torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["generator/cuda"] = torch.cuda.get_rng_state()
    numpy_state = [kind, np.asarray(keys).tolist(), int(place), int(has_gauss), float(gauss)]
    return tensors, {"numpy": numpy_state, "python": [version, list(numbers), python_gauss]}


def _set_generators(tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(tensors["generator/torch"])
    if "generator/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["generator/cuda"])


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


@torch.no_grad()
def _put(state: Mapping[str, torch.Tensor], into: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in into.items():
        tensor.copy_(state[name])


def _copy(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}
