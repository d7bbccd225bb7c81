"""How many bytes a run needs, from shapes and counts alone; see `plan`.

What can be counted is counted: weights, gradients, optimizer state, the prefix cache. What depends on the
libraries has a constant that was measured (torch 2.13, transformers 5.24, glibc, x86-64) and says so.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_rec.towers.layout import linear_modules
from lora_rec.towers.source import weight_files

WIDTHS = {"fp32": 4, "bf16": 2}
"""Bytes of one number."""
NF4_BLOCK = 64
"""Weights that share a scale; 256 scales share one of their own (double quantisation)."""
NF4_TABLES = 4 * (16 + 256 + 1)
"""The code books that every 4-bit tensor carries."""
HEAP_FACTOR = 2.1
"""What the process holds for each byte of activations: gradients and temporaries come on top, and the heap
keeps freed blocks of odd sizes. Measured with 512 to 8,192 tokens in a micro-batch."""
KERNELS_KEPT = 1024
"""oneDNN keeps this many compiled matrix products, one for each combination of shapes."""
FORWARD_KERNEL = 700_000
"""Bytes of one of these for a linear module in bf16; fp32 does not use them."""
BACKWARD_KERNEL = 1_000_000
ATTENTION_KERNELS = 2_600_000
"""Bytes of those that the backward pass of attention in bf16 keeps in each thread, for each length of texts;
their number has no limit."""
LOADER = 25_000_000
"""What loading one model leaves behind in the heap; quantising leaves a share of the file beside it."""
QUANTISER_SHARE = 0.25
INT8_FACTOR = 6.4
"""Bytes left behind for each number that a linear module in 8 bit gives; later stages use them again."""


def linear_parts(model: nn.Module) -> list[tuple[int, int]]:
    """Gives (in, out) of each linear module."""
    found: list[tuple[int, int]] = []
    for path in linear_modules(model):
        module: Any = model.get_submodule(path)
        straight = isinstance(module, nn.Linear)
        found.append((module.in_features, module.out_features) if straight else (module.nx, module.nf))
    return found


def straighten(model: nn.Module) -> None:
    """Turns GPT-2's transposed modules into linear ones, as loading in 8 or 4 bit does."""
    for path, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            parent, _, name = path.rpartition(".")
            linear = nn.Linear(int(module.nx), int(module.nf), device=module.weight.device)
            setattr(model.get_submodule(parent), name, linear.to(module.weight.dtype))


def weight_memory(model: nn.Module, *, precision: str, compute: str) -> int:
    """Gives the bytes of a backbone's parameters; quantisation concerns the linear modules' weights alone.

    So does bf16 where the rest computes in fp32, but for their biases, which are in bf16, too.

    >>> weight_memory(nn.Linear(64, 8, device="meta"), precision="8bit", compute="fp32")
    576
    """
    n_weights = sum(p.numel() for p in model.parameters())
    if precision == compute:
        return n_weights * WIDTHS[precision]
    if precision == "bf16":
        paths = linear_modules(model)
        halved = sum(p.numel() for path in paths for p in model.get_submodule(path).parameters())
        return halved * WIDTHS["bf16"] + (n_weights - halved) * WIDTHS[compute]
    parts = linear_parts(model)
    plain = n_weights - sum(width_in * width_out for width_in, width_out in parts)
    quantise = _eight_bit if precision == "8bit" else _four_bit
    return plain * WIDTHS[compute] + sum(quantise(*part) for part in parts)


def _eight_bit(width_in: int, width_out: int) -> int:
    return width_in * width_out + 4 * width_out  # one fp32 scale per row


def _four_bit(width_in: int, width_out: int) -> int:
    n = width_in * width_out
    blocks = -(-n // NF4_BLOCK)
    return -(-n // 2) + blocks + 4 * -(-blocks // 256) + NF4_TABLES


@dataclass(frozen=True)
class Kernels:
    """Counts of the distinct matrix products that one tower asks of oneDNN."""

    forward: int
    backward: int
    attention: int
    """Distinct lengths of texts."""


def kernel_memory(towers: Iterable[Kernels]) -> int:
    """Gives the bytes of the products that are compiled for a CPU, for the towers that multiply in bf16.

    >>> kernel_memory([Kernels(forward=10, backward=0, attention=0)])
    7000000
    """
    towers = list(towers)
    forward, backward = sum(t.forward for t in towers), sum(t.backward for t in towers)
    kept = min(1.0, KERNELS_KEPT / max(1, forward + backward))
    linear = int(kept * (forward * FORWARD_KERNEL + backward * BACKWARD_KERNEL))
    return linear + sum(t.attention for t in towers) * ATTENTION_KERNELS * torch.get_num_threads()


def int8_heap(tokens: int, linear_outputs: int) -> int:
    """Gives the heap that products in 8 bit leave behind in the first pass through all layers of a model.

    Measured on one model alone (30 layers of width 576, 2,048 tokens): 1.9 GB.
    """
    return int(INT8_FACTOR * tokens * linear_outputs)


def left_by_loading(file_size: int, *, quantised: bool) -> int:
    """Gives what loading a model leaves in the heap beside its weights."""
    return LOADER + int(QUANTISER_SHARE * file_size * quantised)


def file_bytes(folder: Path) -> int:
    """Gives the size of a backbone's weights on disk."""
    return sum(file.stat().st_size for file in weight_files(folder))


def process_memory() -> int:
    """Gives the memory that this process holds now; its peak where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    except OSError:
        return peak_memory()


def peak_memory() -> int:
    """Gives the most memory that this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine_memory(device: torch.device) -> int:
    """Gives the memory of the GPU, or the RAM that this machine, or this container, has in all."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            available = min(available, int(text))
    return available
