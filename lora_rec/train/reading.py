"""How long a run waits for its data: time spent outside of the model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lora_rec.text.collate import BatchSource, TokenBatch


@dataclass
class Stopwatch:
    """Adds up the time of what runs inside `with`."""

    seconds: float = 0.0
    _began: float = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began

    def take(self) -> float:
        """Gives the sum and begins anew."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


@dataclass(frozen=True, eq=False)
class TimedSource:
    """Hands on what another source gives, and adds up the time that takes."""

    source: BatchSource
    watch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,), tokens of each text."""
        return self.source.lengths

    def batch(self, indices: NDArray[np.int64]) -> TokenBatch:
        """Gives the chosen texts as one padded batch."""
        with self.watch:
            return self.source.batch(indices)
