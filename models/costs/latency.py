"""Latency: seconds of a forward pass, looked up in a table that was measured once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cost import SECONDS
from .counted import TableCost
from .tables import Structure

__all__ = ["LatencyCost", "LatencyTable"]


@dataclass(frozen=True)
class LatencyTable:
    """Seconds of every layer at some channel counts, linear in between.

    Attributes:
        inputs: Input channels at which each layer was measured, ascending, [L][K].
        outputs: Output channels likewise.
        seconds: Seconds at every pair of them, never falling, [L][K][K]; already scaled so that
            their sum and ``constant`` fit whole networks.
        constant: Seconds that no layer accounts for.
        error: Mean absolute error of the fit, relative to the measured networks.
    """

    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    seconds: tuple[tuple[tuple[float, ...], ...], ...]
    constant: float
    error: float

    def layers(self, inputs: NDArray[np.int64], outputs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds of every layer, float64 [N, L], for its channel counts, int64 [N, L]."""
        row, right = _place(inputs, self._inputs)
        column, below = _place(outputs, self._outputs)
        layer = np.arange(len(self.seconds))
        grid = self._seconds
        first = grid[layer, row, column] * (1 - right) + grid[layer, row + 1, column] * right
        last = grid[layer, row, column + 1] * (1 - right) + grid[layer, row + 1, column + 1] * right
        return np.asarray(first * (1 - below) + last * below)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable description; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> LatencyTable:
        """The table that :meth:`to_dict` described, also after a JSON round trip."""
        return cls(
            inputs=tuple(tuple(map(int, each)) for each in description["inputs"]),
            outputs=tuple(tuple(map(int, each)) for each in description["outputs"]),
            seconds=tuple(
                tuple(tuple(map(float, row)) for row in each) for each in description["seconds"]
            ),
            constant=float(description["constant"]),
            error=float(description["error"]),
        )

    @cached_property
    def _inputs(self) -> NDArray[np.int64]:
        return np.array(self.inputs, dtype=np.int64)

    @cached_property
    def _outputs(self) -> NDArray[np.int64]:
        return np.array(self.outputs, dtype=np.int64)

    @cached_property
    def _seconds(self) -> NDArray[np.float64]:
        return np.array(self.seconds, dtype=np.float64)


class LatencyCost(TableCost):
    """Seconds of a forward pass at batch 1, one thread, by a table fitted on one machine.

    Args:
        structure: Tables of the network.
        table: Its latencies.
    """

    name = "latency"
    units = SECONDS
    example = "5ms"

    def __init__(self, structure: Structure, table: LatencyTable) -> None:
        self._table = table
        super().__init__(structure)

    @property
    def constant(self) -> float:
        """Seconds that no layer accounts for."""
        return self._table.constant

    def layers(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`TableCost.layers`."""
        return self._table.layers(*self._structure.channels(candidates))


def _place(
    counts: NDArray[np.int64], knots: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The interval [N, L] that each count lies in and where in it, 0 to 1; knots are [L, K]."""
    at = (counts[..., None] >= knots[:, 1:-1]).sum(axis=-1)
    layer = np.arange(len(knots))
    low, high = knots[layer, at], knots[layer, at + 1]
    span = np.maximum(high - low, 1)
    return at, np.clip((counts - low) / span, 0.0, 1.0)
