"""Lets another process say when each training step may run, so that several trainers can take turns.

Standard library alone: it is imported in every environment that takes part.
"""

from __future__ import annotations

import json
import resource
import sys
import time


class Turns:
    """A worker's end: it reports each step on standard output and waits for a line on standard input."""

    def __init__(self) -> None:
        """Keeps standard output for reports alone; what others print goes to standard error."""
        self._reports, sys.stdout = sys.stdout, sys.stderr
        self._began = time.perf_counter()

    def begin(self) -> None:
        """Starts the clock of a step."""
        self._began = time.perf_counter()

    def end(self, interactions: int, **more: float) -> None:
        """Reports a step and waits for the next turn."""
        seconds = time.perf_counter() - self._began
        self.report(seconds=seconds, interactions=interactions, **more)
        if sys.stdin.readline().strip() != "go":
            sys.exit(0)
        self.begin()

    def report(self, **values: float | list[float]) -> None:
        """Writes one line; `peak_mb` is the largest memory that this process has had so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**values, "peak_mb": peak}), file=self._reports, flush=True)
