"""Costs of candidates: what a budget limits, and at which step of an episode it is known."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from ..._registry import Registry
from .activation_memory import ActivationTable
from .latency import LatencyTable
from .tables import Structure

__all__ = [
    "ACTIVATION_MEMORY",
    "COSTS",
    "LATENCY",
    "ActivationMemoryCost",
    "Cost",
    "FlopsCost",
    "LatencyCost",
    "MeasuredCost",
    "ParamsCost",
    "TableCost",
    "Units",
    "table_costs",
]

ACTIVATION_MEMORY, LATENCY = "activation-memory", "latency"

Units = tuple[tuple[str, float], ...]
"""Units of a cost with their size in its base unit, the largest first."""

_COUNTS: Units = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0))
_BYTES: Units = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
_SECONDS: Units = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))


class Cost(ABC):
    """What a candidate costs, as a fraction of the dense network's cost.

    Attributes:
        name: What budgets and evaluations call it.
        dense: The dense network's cost in its base unit, or None while nobody has measured it;
            absolute limits need it. Where the dense network costs nothing, so that there are no
            fractions of it, the cost itself stands for them.
        tabulated: Whether the cost of any widths can be looked up; it then grows with them. A cost
            that is not tabulated is known only from the evaluation of a complete candidate.
        units: Units of absolute limits.
        example: An absolute limit as a user would write it.
    """

    name: str
    dense: float | None
    tabulated: bool
    units: Units = _COUNTS
    example: str = "60M"

    @abstractmethod
    def fraction(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cost of complete candidates.

        Args:
            widths: Units kept, int64 of shape [N, G].

        Returns:
            Fractions of the dense network's cost, float64 of shape [N].
        """

    @abstractmethod
    def shares(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """How the cost becomes known when groups are decided in order.

        Args:
            widths: Units kept, int64 of shape [N, G]. Column t of the result depends on the
                first t + 1 widths only.

        Returns:
            Fractions of the dense network's cost, float64 of shape [N, G]; each row adds up to
            :meth:`fraction`.
        """


class TableCost(Cost):
    """A cost that is a sum over layers, each a function of the widths it touches.

    Args:
        structure: Tables of the network.
    """

    tabulated = True

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        steps = structure.decided_at()
        # Multiplying by this [L, G] matrix charges each layer at the step that decides it.
        self._attribution = np.zeros((len(structure.layers), len(structure.groups)))
        self._attribution[np.arange(len(steps)), steps] = 1.0
        self._total = float(self.layers(structure.sizes[None]).sum()) + self.constant
        self.dense = self._total

    @property
    def constant(self) -> float:
        """Cost that no width changes and no layer of the table accounts for."""
        return 0.0

    @abstractmethod
    def layers(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cost of every layer in the cost's own unit, float64 [N, L], for widths [N, G]."""

    def fraction(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`Cost.fraction`."""
        return np.asarray((self.layers(widths).sum(axis=1) + self.constant) / self._total)

    def shares(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`Cost.shares`; layers that touch no group are charged at the first step."""
        shares = self.layers(widths) @ self._attribution
        shares[:, 0] += self.constant
        return np.asarray(shares / self._total)


class FlopsCost(TableCost):
    """FLOPs: 2 x multiply-accumulates of convolutions and linear layers at batch 1."""

    name = "flops"

    @property
    def constant(self) -> float:
        """FLOPs of operations that the tables do not list."""
        return float(self._structure.other_flops)

    def layers(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`TableCost.layers`."""
        return self._structure.layer_flops(widths).astype(np.float64)


class ParamsCost(TableCost):
    """Learnable numbers."""

    name = "params"

    @property
    def constant(self) -> float:
        """Learnable numbers in modules that the tables do not list."""
        return float(self._structure.other_params)

    def layers(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`TableCost.layers`."""
        return self._structure.layer_params(widths).astype(np.float64)


class LatencyCost(TableCost):
    """Seconds of a forward pass at batch 1, one thread, by a table fitted on one machine.

    Args:
        structure: Tables of the network.
        table: Its latencies.
    """

    name = LATENCY
    units = _SECONDS
    example = "5ms"

    def __init__(self, structure: Structure, table: LatencyTable) -> None:
        self._table = table
        super().__init__(structure)

    @property
    def constant(self) -> float:
        """Seconds that no layer accounts for."""
        return self._table.constant

    def layers(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`TableCost.layers`."""
        return self._table.layers(*self._structure.channels(widths))


class ActivationMemoryCost(Cost):
    """Peak of live activations at batch 1 in bytes, float32.

    Args:
        table: What is alive at which moment.
        sizes: Units of every group of the dense network, int64 [G].
    """

    name = ACTIVATION_MEMORY
    tabulated = True
    units = _BYTES
    example = "2MB"

    def __init__(self, table: ActivationTable, sizes: NDArray[np.int64]) -> None:
        self._table = table
        self._dense = float(table.peak(sizes[None])[0])
        self.dense = self._dense

    def fraction(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`Cost.fraction`."""
        return np.asarray(self._table.peak(widths) / self._dense)

    def shares(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`Cost.shares`: by how much each step raises the peak that is known so far."""
        known = self._table.known_peaks(widths) / self._dense
        return np.diff(known, axis=1, prepend=0.0)


class MeasuredCost(Cost):
    """A cost that only the evaluation of a complete candidate reveals.

    It may be any function of the network: it need not grow with the widths, and the shield cannot
    project on it.

    Args:
        name: Its key in the evaluation's costs.
        dense: The dense network's cost in its own unit, if it was measured.
    """

    tabulated = False
    example = "3 units"

    def __init__(self, name: str, dense: float | None = None) -> None:
        self.name = name
        self.dense = dense

    def fraction(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Unknown: NaN for every candidate, float64 [N]."""
        return np.full(len(widths), np.nan)

    def shares(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Nothing before the end and unknown there: zeros, NaN in the last column, [N, G]."""
        shares = np.zeros(widths.shape)
        shares[:, -1] = np.nan
        return shares


COSTS: Registry[Cost] = Registry(
    "cost",
    {cost.name: cost for cost in (FlopsCost, ParamsCost, ActivationMemoryCost, LatencyCost)},
    forms={"FILE.py:FUNCTION": "A function of the network and one image: the user's own cost."},
)
"""Our own costs."""


def table_costs(structure: Structure) -> dict[str, Cost]:
    """The costs that a structure alone tells, by name: ``flops`` and ``params``."""
    costs: list[Cost] = [FlopsCost(structure), ParamsCost(structure)]
    return {cost.name: cost for cost in costs}
