"""Lets another process say when each training step may run, so that several trainers can take turns.

Standard library alone, but for torch on a GPU: it is imported in every environment that takes part.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any


class Turns:
    """A worker's end: it reports each step on standard output and waits for a line on standard input."""

    def __init__(self, *, cuda: bool = False, counts: bool = False) -> None:
        """Keeps standard output for reports alone; what others print goes to standard error.

        Args:
            cuda: wait for the GPU where a step ends, and report its memory.
            counts: count the floating-point operations of the first step, which slows that one.
        """
        self._reports, sys.stdout = sys.stdout, sys.stderr
        self._cuda: Any = None
        self._counter: Any = None
        if cuda:
            import torch

            self._cuda = torch.cuda
        if counts:
            from torch.utils.flop_counter import FlopCounterMode

            self._counter = FlopCounterMode(display=False)
        self._flops: dict[str, float] = {}
        self._began = time.perf_counter()

    def begin(self) -> None:
        """Starts the clock of a step."""
        if self._counter is not None and not self._flops:
            self._counter.__enter__()
            self._flops = {"flops": 0.0}
        self._began = time.perf_counter()

    def end(self, interactions: float, **more: float) -> None:
        """Reports a step and waits for the next turn."""
        if self._cuda is not None:
            self._cuda.synchronize()
        seconds = time.perf_counter() - self._began
        if self._counter is not None and self._flops:
            self._counter.__exit__(None, None, None)
            self._flops = {"flops": float(self._counter.get_total_flops())}
            self._counter = None
        self.report(seconds=seconds, interactions=interactions, **self._flops, **more)
        if sys.stdin.readline().strip() != "go":
            sys.exit(0)
        self.begin()

    def report(self, **values: float | list[float]) -> None:
        """Writes one line; `peak_mb` is the most memory that this process has had, the GPU's on a GPU."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if self._cuda is not None:
            peak = self._cuda.max_memory_allocated() / 2**20
        print(json.dumps({**values, "peak_mb": peak}), file=self._reports, flush=True)
