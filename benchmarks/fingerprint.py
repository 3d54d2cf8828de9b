"""A measure that leaves a trace of every evaluation outside of the record."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

from prunetune.rewards.measures.measure import Batch, Measure
from torch import Tensor, nn

__all__ = ["Fingerprint"]


class Fingerprint(Measure):
    """Tells candidates apart by the shapes of their parameters, and logs when each one begins.

    Args:
        log: A line ``TIME FINGERPRINT PID`` is appended for every candidate.
        seconds: How long every evaluation is made to take at least.
    """

    name = "fingerprint"

    def __init__(self, log: str, seconds: float = 0.0) -> None:
        self.log = Path(log)
        self.seconds = seconds
        self._value = 0

    def fit(self, network: nn.Module, batches: Iterable[Tensor]) -> None:
        """Nothing is learned of the dense network."""

    def attach(self, network: nn.Module) -> None:
        """See `Measure.attach`."""
        shapes = str([tuple(parameter.shape) for parameter in network.parameters()])
        self._value = zlib.crc32(shapes.encode())
        with open(self.log, "a") as file:
            file.write(f"{time.time()} {self._value} {os.getpid()}\n")
        time.sleep(self.seconds)

    def reset(self) -> None:
        """See `Measure.reset`."""

    def update(self, batch: Batch) -> None:
        """See `Measure.update`."""

    def compute(self) -> dict[str, float]:
        """See `Measure.compute`."""
        return {self.name: float(self._value)}
