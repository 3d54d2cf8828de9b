"""What a cost is: a number of a candidate that a budget may limit and a reward may read."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

__all__ = ["BYTES", "COUNTS", "SECONDS", "Cost", "MeasuredCost", "Units"]

Units = tuple[tuple[str, float], ...]
"""Units of a cost with their size in its base unit, the largest first."""

COUNTS: Units = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0))
BYTES: Units = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
SECONDS: Units = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))


class Cost(ABC):
    """What a candidate costs, as a fraction of the dense network's cost.

    Attributes:
        name: What budgets and evaluations call it.
        dense: The dense network's cost in its base unit, or None while nobody has measured it;
            absolute limits need it. Where the dense network costs nothing, so that there are no
            fractions of it, the cost itself stands for them.
        tabulated: Whether the cost of any candidate can be looked up; it then grows with every
            decision. A cost that is not tabulated is known only from the evaluation of a complete
            candidate.
        units: Units of absolute limits.
        example: An absolute limit as a user would write it.
    """

    name: str
    dense: float | None
    tabulated: bool
    units: Units = COUNTS
    example: str = "60M"

    @abstractmethod
    def fraction(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cost of complete candidates.

        Args:
            candidates: int64 of shape [N, D].

        Returns:
            Fractions of the dense network's cost, float64 of shape [N].
        """

    @abstractmethod
    def shares(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """How the cost becomes known when decisions are made in order.

        Args:
            candidates: int64 of shape [N, D]. Column t of the result depends on the first t + 1
                decisions only.

        Returns:
            Fractions of the dense network's cost, float64 of shape [N, D]; each row adds up to
            :meth:`fraction`.
        """


class MeasuredCost(Cost):
    """A cost that only the evaluation of a complete candidate reveals.

    It may be any function of the network: it need not grow with the decisions, and the shield
    cannot project on it.

    Args:
        name: Its key in the evaluation's costs.
        dense: The dense network's cost in its own unit, if it was measured.
    """

    tabulated = False
    example = "3 units"

    def __init__(self, name: str, dense: float | None = None) -> None:
        self.name = name
        self.dense = dense

    def fraction(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Unknown: NaN for every candidate, float64 [N]."""
        return np.full(len(candidates), np.nan)

    def shares(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Nothing before the end and unknown there: zeros, NaN in the last column, [N, D]."""
        shares = np.zeros(candidates.shape)
        shares[:, -1] = np.nan
        return shares
