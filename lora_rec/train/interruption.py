"""What may happen to a run from outside: it is asked to stop, memory runs out, a process is lost."""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol, TypeVar

import torch
from accelerate import Accelerator

from lora_rec.errors import LoraRecError, TrainingError

logger = logging.getLogger(__name__)

T = TypeVar("T")

EXIT_CODE = 128 + signal.SIGTERM
"""What a shell gives for a process that ended by SIGTERM: 143."""


class Interrupted(LoraRecError):
    """The run was asked to stop and wrote a checkpoint before it did."""


class StopRequest:
    """Whether SIGTERM came."""

    def __init__(self) -> None:
        """Begins without one."""
        self.came = False

    def anywhere(self, accelerator: Accelerator) -> bool:
        """Says whether it came to any process; all get the same answer, so that all stop at the same step."""
        if accelerator.num_processes == 1:
            return self.came
        mine = torch.tensor([int(self.came)], device=accelerator.device)
        return bool(accelerator.reduce(mine, reduction="sum").item())


@contextmanager
def note_sigterm() -> Iterator[StopRequest]:
    """Notes SIGTERM instead of dying of it, for as long as the context lasts.

    Outside of the main thread nothing changes: Python lets no other one handle signals.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        request.came = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)


LEAST_BUDGET = 16
_NO_MEMORY = re.compile(r"not enough memory|can't allocate memory|out of memory", re.IGNORECASE)
_LOST = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|timed? ?out|remote process exited", re.IGNORECASE
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Says whether memory ran out, of a card or of the machine; for the latter torch has no class."""
    return isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY.search(str(error)) is not None


def smaller_budget(token_budget: int, accelerator: Accelerator) -> int:
    """Gives half of the tokens of a micro-batch, and says so.

    Raises:
        TrainingError: there is nothing left to halve, or other processes wait for this one in a step that it
            cannot redo alone.
    """
    if accelerator.num_processes > 1:
        raise TrainingError(
            f"train: memory does not suffice for micro-batches of {token_budget} tokens; lower"
            " train.token_budget"
        )
    half = token_budget // 2
    if half < LEAST_BUDGET:
        raise TrainingError(
            f"train: memory does not suffice for micro-batches of {token_budget} tokens, which is the least;"
            " choose a smaller backbone or a lower precision, or train fewer layers"
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning(
        "out of memory with micro-batches of %d tokens; going on with %d (the result stays;"
        " train.token_budget=%d spares the attempt)",
        token_budget,
        half,
        half,
    )
    return half


class _Counts(Protocol):
    step: int
    token_budget: int


def with_enough_memory(
    compute: Callable[[int], T],
    trained: Collection[torch.nn.Parameter],
    progress: _Counts,
    accelerator: Accelerator,
) -> T:
    """Gives what `compute` gives for the tokens of a micro-batch, which are halved until memory suffices.

    Args:
        compute: leaves gradients.
        trained: where it leaves them; those of a failed attempt are taken away.
        progress: its token budget is lowered.
        accelerator: see `smaller_budget`, for errors too.
    """
    while True:
        try:
            return compute(progress.token_budget)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, which holds on to the tensors of the failed attempt.
        for parameter in trained:
            parameter.grad = None
        progress.token_budget = smaller_budget(progress.token_budget, accelerator)


@contextmanager
def lost_process(accelerator: Accelerator, progress: _Counts) -> Iterator[None]:
    """Says in one line that another process of the run is gone.

    Raises:
        TrainingError: instead of what the collective call said.
    """
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes == 1 or _LOST.search(str(error)) is None:
            raise
        raise TrainingError(
            f"train: another process of the run is gone (after step {progress.step}); look at its output,"
            " then run the same command again: it goes on from the last checkpoint"
        ) from error
