"""The bottleneck adapter: a small two-layer network after each block, before it joins the residual stream.

Own code, because the library that has it, adapters 1.3.0, asks for transformers 4.57. Source: Houlsby et al.
2019, "Parameter-Efficient Transfer Learning for NLP", section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from lora_rec.errors import TowerError
from lora_rec.towers.adapters.targets import find_targets

FILE = "bottleneck.safetensors"


class BottleneckOutput(nn.Module):
    """A block's last linear module, then h + up(gelu(down(h)))."""

    def __init__(self, base_layer: nn.Module, *, hidden_size: int, width: int) -> None:
        """Starts as the identity: `up` is zero."""
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.Linear(hidden_size, width)
        self.bottleneck_up = nn.Linear(width, hidden_size)
        nn.init.zeros_(self.bottleneck_up.weight)
        nn.init.zeros_(self.bottleneck_up.bias)

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Gives what the block adds to the stream."""
        hidden = self.base_layer(*args, **kwargs)
        inner = nn.functional.gelu(self.bottleneck_down(hidden.float()))
        return hidden + self.bottleneck_up(inner).to(hidden.dtype)


def add_bottlenecks(
    model: nn.Module, *, width: int, first_layer: int, where: str, targets: Sequence[str] | None = None
) -> list[str]:
    """Wraps the last module of each attention and feed-forward block; gives their paths."""
    paths = list(
        targets or find_targets(model, first_layer=first_layer, names=None, where=where, described="outputs")
    )
    hidden_size = int(model.config.hidden_size)  # type: ignore[union-attr,arg-type]
    for path in paths:
        parent, _, name = path.rpartition(".")
        owner = model.get_submodule(parent)
        base = owner.get_submodule(name)
        wrapped = BottleneckOutput(base, hidden_size=hidden_size, width=width)
        setattr(owner, name, wrapped.to(next(base.parameters()).device))
    return paths


def save_bottlenecks(model: nn.Module, folder: Path) -> None:
    """Writes the tensors of all bottlenecks."""
    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if ".bottleneck_" in name
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / FILE))


def load_bottlenecks(model: nn.Module, folder: Path, *, where: str) -> None:
    """Puts saved bottlenecks on their backbone.

    Raises:
        TowerError: the backbone lacks a module that carried one.
    """
    with safe_open(str(folder / FILE), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    down = {n.split(".bottleneck_")[0]: t.shape[0] for n, t in tensors.items() if n.endswith("down.weight")}
    there = dict(model.named_modules())
    missing = [path for path in down if path not in there]
    if missing or not down:
        raise TowerError(
            f"{where}: the backbone has no module {missing[:1] or FILE}; give the one it was trained on"
        )
    add_bottlenecks(model, width=next(iter(down.values())), first_layer=0, where=where, targets=list(down))
    model.load_state_dict(tensors, strict=False)
