"""Frozen layers parted among the processes, for a backbone that is too large to lie in every device.

Each process keeps its part of every layer and gets the rest when the layer runs: FSDP2, layer by layer
(`torch.distributed.fsdp.fully_shard`; Zhao et al. 2023, arXiv 2304.11277). Adapters are small and stay whole,
and the loop adds up their gradients as it does without: so nothing of a run changes but its memory, in fp32,
bf16 and 4 bit (QLoRA). Embeddings stay whole, too.

A layer is put together by all processes at once, so all have to run it equally often, however many texts each
has: who has fewer micro-batches runs one text more, of which nothing is used.
"""

from __future__ import annotations

import logging
import os

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from lora_rec.errors import TrainingError
from lora_rec.towers.layout import find_layout
from lora_rec.towers.two_tower import Tower, TwoTower

logger = logging.getLogger(__name__)

NO_TEXTS = np.empty(0, dtype=np.int64)


def wants_sharding() -> bool:
    """Says whether the launcher was told to shard: `accelerate launch` with an FSDP configuration."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def loading_device(accelerator: Accelerator) -> torch.device:
    """Gives where backbones are to be loaded: those that are sharded need not fit one device."""
    return torch.device("cpu") if wants_sharding() else accelerator.device


def shard_frozen_layers(model: TwoTower, accelerator: Accelerator) -> None:
    """Parts the frozen layers of both towers, if the launcher was told so; moves all to the device.

    Raises:
        TrainingError: a tower is in 8 bit, whose layers cannot be parted, or its layers are not known.
    """
    if not wants_sharding():
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layers = {where: _layers(tower, where) for where, tower in model.towers.items()}
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for where, tower in model.towers.items():
        tower.n_frozen = tower.count_frozen()
        for layer in layers[where]:
            adapters = {parameter for parameter in layer.parameters() if parameter.requires_grad}
            layer.to(accelerator.device)  # the others wait on the processor, so one whole layer has to fit
            # Without being told, a layer that nothing above it shards stays whole after its first run.
            fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=adapters)
        tower.to(accelerator.device)
        tower.is_sharded = True
        logger.info("%s: frozen layers parted among %d processes", where, accelerator.num_processes)


def _layers(tower: Tower, where: str) -> list[nn.Module]:
    info = tower.backbone_info
    path = find_layout(info.model).layers
    if info.precision.name == "8bit" or path is None:
        raise TrainingError(
            f"{where}: FSDP parts no layers in 8 bit and none of a backbone whose layers are not known; set"
            f" {where}.precision=4bit, or launch with recipes/launch/ddp.yaml"
        )
    return list(info.model.get_submodule(path).children())


def most_passes(accelerator: Accelerator | None, is_sharded: bool, n: int) -> int:
    """Gives how many passes the process with the most makes; n where passes need no company."""
    if accelerator is None or not is_sharded:
        return n
    return int(accelerator.gather(torch.tensor([n], device=accelerator.device)).max())


def in_company(
    accelerator: Accelerator | None, is_sharded: bool, plan: list[NDArray[np.int64]]
) -> list[NDArray[np.int64]]:
    """Adds micro-batches without texts until every process has as many."""
    return plan + [NO_TEXTS] * (most_passes(accelerator, is_sharded, len(plan)) - len(plan))
