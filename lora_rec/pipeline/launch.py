"""What every recipe script does around its run: arguments, cores, processes, and errors of one line."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from lora_rec.config import load_config
from lora_rec.errors import LoraRecError, TrainingError
from lora_rec.recipe import Recipe
from lora_rec.terminal import show_all_letters
from lora_rec.train.interruption import EXIT_CODE, Interrupted
from lora_rec.train.sharding import wants_sharding

if TYPE_CHECKING:
    from accelerate import Accelerator


logger = logging.getLogger(__name__)

R = TypeVar("R")
PATIENCE = timedelta(days=1)
"""How long a process waits for the others."""


def launch(
    run: Callable[[R], None],
    *,
    name: str,
    description: str | None,
    recipe: type[R] = Recipe,  # type: ignore[assignment]
) -> int:
    """Parses the command line and runs.

    Gives 1 after an error that the user can put right, and 143 when SIGTERM stopped a run that can go on.

    Args:
        run: the script's own part.
        name: of the script, for errors.
        description: for `--help`.
        recipe: class of the settings.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="YAML file, see recipes/configs")
    parser.add_argument("overrides", nargs="*", help="section.field=value, e.g. train.learning_rate=2e-4")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("lora_rec").setLevel(logging.INFO if _is_first() else logging.WARNING)
    _use_cores()
    _end_with_launcher()
    show_all_letters()
    try:
        run(load_config(recipe, arguments.config, overrides=arguments.overrides))
    except LoraRecError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return EXIT_CODE if isinstance(error, Interrupted) else 1
    return 0


def check_launch(*, shards: bool = False) -> None:
    """Refuses, or says, what the launcher was told and this run does not do; before there is an accelerator.

    Args:
        shards: whether the script calls `shard_frozen_layers`.

    Raises:
        TrainingError: DeepSpeed, or FSDP that shards nothing or loads the weights in one process alone.
    """
    told = {"DeepSpeed": "ACCELERATE_USE_DEEPSPEED", "Megatron": "ACCELERATE_USE_MEGATRON_LM"}
    for name in (name for name, variable in told.items() if os.environ.get(variable, "").lower() == "true"):
        raise TrainingError(
            f"launch: {name} would have no effect: it shards what is trained, and here that is small"
            " adapters; launch with recipes/launch/ddp.yaml, or with fsdp.yaml to shard the frozen layers"
        )
    if wants_sharding() and not shards:
        raise TrainingError(
            "launch: this script shards nothing, so FSDP would have no effect; launch with"
            " recipes/launch/ddp.yaml"
        )
    mixed = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if mixed != "no" and _is_first():
        logger.warning("launch: mixed precision %s has no effect; a tower's `precision` says it", mixed)
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps != "1" and _is_first():
        logger.warning(
            "launch: %s accumulation steps have no effect; `train.batch_size` is that of a step, whatever"
            " `train.token_budget` lets into memory at a time",
            steps,
        )
    compiler = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no")
    if compiler.lower() != "no" and _is_first():
        logger.warning("launch: the dynamo backend %s has no effect", compiler.lower())
    if wants_sharding() and os.environ.get("FSDP_OFFLOAD_PARAMS", "").lower() == "true":
        raise TrainingError(
            "launch: fsdp_offload_params would have no effect; set it to false, and where memory does not"
            " suffice use more processes or precision 4bit"
        )
    if wants_sharding() and os.environ.get("FSDP_CPU_RAM_EFFICIENT_LOADING", "").lower() == "true":
        raise TrainingError(
            "launch: fsdp_cpu_ram_efficient_loading leaves the weights of all but one process empty; set it"
            " to false, as recipes/launch/fsdp.yaml does"
        )


def start_processes() -> Accelerator:
    """Gives the accelerator of a run whose processes know of each other.

    They wait for one another as long as it takes: the main one alone translates texts, say, and the ten
    minutes of NCCL or thirty of gloo would end the run. A process that is lost is noticed at once.

    Raises:
        TrainingError: see `check_processes`.
    """
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])
    check_processes(accelerator)
    return accelerator


def check_processes(accelerator: Accelerator) -> None:
    """Refuses processes that do not know of each other: each would train alone and write the output."""
    asked = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != asked:
        raise TrainingError(
            f"launch: {asked} processes were started but this one sees {accelerator.num_processes};"
            " without a GPU set ACCELERATE_USE_CPU=true"
        )


def _use_cores() -> None:
    """Takes the threads that OMP_NUM_THREADS says, or shares the cores among the processes of this machine.

    The launchers set it to 1 by themselves, and that is no wish.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and (int(given) > 1 or (given == "1" and not _is_launched())):
        torch.set_num_threads(int(given))
    else:
        torch.set_num_threads(max(1, count_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def count_cores(limits: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Gives the cores that this process may use: of the machine, by its affinity, by its container's quota.

    Args:
        limits: a control group's file, microseconds of work and of time; `cpu.max` in the kernel's cgroup-v2.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = map(int, limits.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # another system, or "max", which is no limit
        return cores
    return min(cores, max(1, -(-quota // period)))


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _is_launched() -> bool:
    return bool({"ACCELERATE_MIXED_PRECISION", "LOCAL_WORLD_SIZE"} & os.environ.keys())


def _end_with_launcher() -> None:
    """Makes Linux send SIGTERM when `accelerate launch` ends: with one process it does not pass it on.

    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    if _is_launched() and sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)
