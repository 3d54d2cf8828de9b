"""Costs that are sums over layers, and those that are counted exactly: FLOPs and parameters."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from .cost import Cost
from .tables import Structure

__all__ = ["FlopsCost", "ParamsCost", "TableCost", "counted_costs"]


class TableCost(Cost):
    """A cost that is a sum over layers, each a function of the decisions that it depends on.

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
        """Cost that no decision changes and no layer of the table accounts for."""
        return 0.0

    @abstractmethod
    def layers(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cost of every layer in the cost's own unit, float64 [N, L], of candidates [N, D]."""

    def fraction(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`Cost.fraction`."""
        return np.asarray((self.layers(candidates).sum(axis=1) + self.constant) / self._total)

    def shares(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`Cost.shares`; what no decision changes is charged at the first step."""
        shares = self.layers(candidates) @ self._attribution
        shares[:, 0] += self.constant
        return np.asarray(shares / self._total)


class FlopsCost(TableCost):
    """FLOPs: 2 x multiply-accumulates of convolutions and linear layers at batch 1."""

    name = "flops"

    @property
    def constant(self) -> float:
        """FLOPs of operations that the tables do not list."""
        return float(self._structure.other_flops)

    def layers(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`TableCost.layers`."""
        return self._structure.layer_flops(candidates).astype(np.float64)


class ParamsCost(TableCost):
    """Learnable numbers."""

    name = "params"

    @property
    def constant(self) -> float:
        """Learnable numbers in modules that the tables do not list."""
        return float(self._structure.other_params)

    def layers(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :meth:`TableCost.layers`."""
        return self._structure.layer_params(candidates).astype(np.float64)


def counted_costs(structure: Structure) -> dict[str, Cost]:
    """The costs that a structure alone tells, by name: ``flops`` and ``params``."""
    costs: list[Cost] = [FlopsCost(structure), ParamsCost(structure)]
    return {cost.name: cost for cost in costs}
