"""AdaLoRA's rank allocation, run by the training loop; nobody has to remember a step.

peft has the importance scores and the masks, but calls nothing by itself, counts steps that it is told, keeps
the averages out of every state dict, and allocates for the last time at one single step. This object takes
its schedule from the loop, adds the orthogonality penalty, and forces the last allocation when that step was
never reached. Source: Zhang et al. 2023, arXiv 2303.10512.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from lora_rec.errors import TrainingError
from lora_rec.towers.two_tower import Tower

logger = logging.getLogger(__name__)

_VALUES = ".lora_E.default"
KEPT_RANKS = 200
"""Of a run, about, evenly spread: they are in every checkpoint and in metrics.json."""


@dataclass(frozen=True)
class Schedule:
    """Optimizer steps at which the budget begins to fall and is final."""

    n_steps: int
    begin: int
    end: int
    interval: int

    @classmethod
    def of(cls, n_steps: int, *, begin: float, end: float, interval: int, where: str) -> Schedule:
        """Derives the schedule from the length of a run.

        Raises:
            TrainingError: the run is too short for a step of allocation between begin and end.
        """
        first, last = round(begin * n_steps), round(end * n_steps)
        if not first < last < n_steps:
            raise TrainingError(
                f"{where}: {n_steps} steps are too few for AdaLoRA to lower ranks between {begin:.0%} and"
                f" {end:.0%} of them; raise train.epochs, lower train.batch_size or move allocation_end"
            )
        return cls(n_steps, first, last, interval)


class RankAllocation:
    """Lowers the ranks of one tower's AdaLoRA while it trains."""

    def __init__(self, tower: Tower, *, n_steps: int, where: str) -> None:
        """Sets the schedule; see `Schedule.of` for errors."""
        settings = tower.adapter.settings
        self.where = where
        self.weight: float = settings["orthogonality_weight"]
        self.schedule = Schedule.of(
            n_steps,
            begin=settings["allocation_begin"],
            end=settings["allocation_end"],
            interval=settings["allocation_interval"],
            where=where,
        )
        self._peft = cast(Any, tower.model)
        self._model = cast(Any, self._peft.base_model)
        self._config = self._peft.peft_config["default"]
        self._config.total_step = n_steps
        self._config.tinit = self.schedule.begin
        self._config.tfinal = n_steps - self.schedule.end
        self._config.deltaT = self.schedule.interval
        self._model.rankallocator.set_total_step(n_steps)
        self.is_final = False
        self.ranks_over_time: list[tuple[int, dict[str, int]]] = [(0, self.ranks())]

    @property
    def budget(self) -> int:
        """Sum of the ranks at the end."""
        return int(self._model.rankallocator.target_bgt)

    def penalty(self) -> torch.Tensor:
        """Gives the weighted mean of |A A^T - I|^2 and |B^T B - I|^2 over the modules (paper, eq. 4).

        The norms are squared, as there: unsquared, their gradient would be of full size at the start, where
        they are zero but for rounding, and move the factors at random.
        """
        terms = []
        for name, parameter in self._peft.named_parameters():
            if ".lora_A.default" in name:
                gram = parameter @ parameter.T
            elif ".lora_B.default" in name:
                gram = parameter.T @ parameter
            else:
                continue
            terms.append((gram - torch.eye(len(gram), device=gram.device)).square().sum())
        return self.weight * torch.stack(terms).mean()

    def after_step(self, step: int, accelerator: Accelerator) -> None:
        """Updates importances and ranks; after `optimizer.step()`, with the gradients still in place.

        Args:
            step: optimizer steps done, from 1.
            accelerator: whose processes must agree on the ranks.
        """
        allocator: Any = self._model.rankallocator
        before = self._config.rank_pattern
        if step == self.schedule.end:
            self._force(step, accelerator)
            return
        if self.is_final:
            allocator.mask_using_rank_pattern(self._model.model, self._config.rank_pattern)
            return
        self._model.update_and_allocate(step)
        due = step - self.ranks_over_time[-1][0] >= self.schedule.end // KEPT_RANKS
        if due and self._config.rank_pattern is not before:
            self.ranks_over_time.append((step, self.ranks()))

    def finish(self, step: int, accelerator: Accelerator) -> bool:
        """Allocates for the last time if the run ended before that; says whether it had to."""
        if self.is_final:
            return False
        logger.info(
            "%s: the run ended at step %d, before the last allocation; allocating now", self.where, step
        )
        self._force(step, accelerator)
        return True

    def _force(self, step: int, accelerator: Accelerator) -> None:
        allocator: Any = self._model.rankallocator
        model = self._model.model
        if any(p.grad is not None for p in model.parameters()):
            allocator.update_ipt(model)
        self._config.rank_pattern = allocator.mask_to_budget(model, self.budget)
        self.is_final = True
        ranks = self.ranks()
        self.ranks_over_time.append((step, ranks))
        total = sum(ranks.values())
        if total > self.budget:
            raise TrainingError(f"{self.where}: the ranks sum to {total}, above the budget {self.budget}")
        if total < self.budget:
            logger.info("%s: %d of %d ranks kept; the rest had no importance", self.where, total, self.budget)
        self._check_agreement(ranks, accelerator)

    def _check_agreement(self, ranks: Mapping[str, int], accelerator: Accelerator) -> None:
        mine = torch.tensor([list(ranks.values())], device=accelerator.device)
        every = accelerator.gather(mine)
        if not bool((every == every[:1]).all()):
            raise TrainingError(f"{self.where}: processes kept different ranks, so their adapters differ")

    def ranks(self) -> dict[str, int]:
        """Gives how many directions each module has left: before the first allocation, all."""
        pattern = self._config.rank_pattern or {}
        return {
            name.removesuffix(_VALUES): int(sum(pattern.get(name, [True] * len(parameter))))
            for name, parameter in self._model.model.named_parameters()
            if name.endswith(_VALUES)
        }

    def state_dict(self) -> dict[str, Any]:
        """Gives what no other state dict holds and an exact resume needs: importances and ranks."""
        allocator: Any = self._model.rankallocator
        return {
            "is_final": self.is_final,
            "rank_pattern": self._config.rank_pattern,
            "ranks_over_time": self.ranks_over_time,
            **{name: dict(getattr(allocator, name)) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        allocator: Any = self._model.rankallocator
        self.is_final = state["is_final"]
        self._config.rank_pattern = state["rank_pattern"]
        self.ranks_over_time = list(state["ranks_over_time"])
        for name in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            setattr(allocator, name, dict(state[name]))


@dataclass(frozen=True)
class Allocations:
    """The rank allocations of all towers whose adapter is AdaLoRA; with none, nothing happens."""

    towers: Mapping[str, RankAllocation]

    @property
    def are_final(self) -> bool:
        """Whether every tower is within its budget for good."""
        return all(allocation.is_final for allocation in self.towers.values())

    def add_penalty(self, accelerator: Accelerator) -> None:
        """Adds the gradient of the penalties; gradients are summed over processes, so each adds its part."""
        for allocation in self.towers.values():
            (allocation.penalty() / accelerator.num_processes).backward()

    def after_step(self, step: int, accelerator: Accelerator) -> None:
        """See `RankAllocation.after_step`."""
        for allocation in self.towers.values():
            allocation.after_step(step, accelerator)

    def finish(self, step: int, accelerator: Accelerator) -> bool:
        """See `RankAllocation.finish`; says whether any tower changed, and logs the ranks that are left."""
        changed = [allocation.finish(step, accelerator) for allocation in self.towers.values()]
        for name, allocation in self.towers.items():
            logger.info("%s: ranks kept\n%s", name, format_ranks(allocation.ranks()))
        return any(changed)

    def ranks_over_time(self) -> dict[str, list[tuple[int, dict[str, int]]]]:
        """Gives, by tower, the steps and the ranks that each module had left."""
        return {name: allocation.ranks_over_time for name, allocation in self.towers.items()}


def build_allocations(towers: Mapping[str, Tower], *, n_steps: int) -> Allocations:
    """Finds the towers whose adapter is AdaLoRA; see `Schedule.of` for errors."""
    return Allocations(
        {
            name: RankAllocation(tower, n_steps=n_steps, where=name)
            for name, tower in towers.items()
            if tower.adapter.settings.adapter == "adalora"
        }
    )


def format_ranks(ranks: Mapping[str, int]) -> str:
    """Gives a table of the ranks: one line per layer, one column per module.

    >>> print(format_ranks({"layers.0.q_proj": 3, "layers.0.v_proj": 5, "layers.1.q_proj": 0}))
    layer  q_proj  v_proj
        0       3       5
        1       0       -
    """
    layers, modules, grid = rank_grid(ranks)
    lines = ["layer  " + "  ".join(modules)]
    for layer, row in zip(layers, grid.tolist(), strict=True):
        cells = ["-" if rank != rank else f"{rank:.0f}" for rank in row]
        padded = [cell.rjust(len(name)) for cell, name in zip(cells, modules, strict=True)]
        lines.append(f"{layer:>5}  " + "  ".join(padded))
    return "\n".join(lines)


def rank_grid(ranks: Mapping[str, int]) -> tuple[list[int], list[str], NDArray[np.float64]]:
    """Gives layers, module names and the ranks as (layers, modules); NaN where a layer lacks a module."""
    cells: dict[tuple[int, str], int] = {}
    for path, rank in ranks.items():
        number = re.search(r"\.(\d+)\.", f".{path}")
        cells[int(number.group(1)) if number else 0, path.rsplit(".", 1)[-1]] = rank
    layers = sorted({layer for layer, _ in cells})
    modules = sorted({name for _, name in cells})
    grid = np.full((len(layers), len(modules)), np.nan)
    for (layer, name), rank in cells.items():
        grid[layers.index(layer), modules.index(name)] = rank
    return layers, modules, grid
