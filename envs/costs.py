"""Costs of candidates: what a budget limits, and at which step of an episode it is known."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from ..models.structure import Structure

__all__ = ["Cost", "FlopsCost", "MeasuredCost", "ParamsCost", "TableCost", "table_costs"]


class Cost(ABC):
    """A number that grows with the widths, as a fraction of the dense network's.

    Attributes:
        name: What budgets and evaluations call it.
        dense: The dense network's cost in its own unit, or None while nobody has measured it;
            absolute limits need it.
        tabulated: Whether the cost of any widths can be looked up. A cost that is not tabulated
            is known only from the evaluation of a complete candidate.
    """

    name: str
    dense: float | None
    tabulated: bool

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
    """FLOPs at batch 1, counted as 2 x multiply-accumulates."""

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


class MeasuredCost(Cost):
    """A cost that only the evaluation of a complete candidate reveals.

    Args:
        name: Its key in the evaluation's costs.
        dense: The dense network's cost in its own unit, if it was measured.
    """

    tabulated = False

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


def table_costs(structure: Structure) -> dict[str, Cost]:
    """The costs that every structure has, by name: ``flops`` and ``params``."""
    costs: list[Cost] = [FlopsCost(structure), ParamsCost(structure)]
    return {cost.name: cost for cost in costs}
