"""What candidates are believed to cost: looked up, or learned from what a search has evaluated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....envs.budgets import minimum_widths
from ....envs.problem import PruningProblem
from .learned_costs import LearnedCost

__all__ = ["BelievedCosts"]

# A learned cost keeps its limit by so many errors of the model; 19 of 20 normal ones are smaller.
_ERRORS = 1.6


class BelievedCosts:
    """The costs of candidates as far as they are known without an evaluation.

    Tabulated costs are looked up. Costs that only an evaluation reveals are predicted from the
    problem's past, plus 1.6 errors of the prediction (our choice); as long as they could not be
    learned nothing is believed of them.

    Args:
        problem: Its past decides, as it is now.
        learn: Whether to learn; otherwise only tabulated costs are known.
    """

    def __init__(self, problem: PruningProblem, learn: bool = True) -> None:
        self._problem = problem
        past, sizes = problem.past(), problem.structure.sizes
        self._learned: dict[int, LearnedCost] = {}
        for index, cost in enumerate(problem.limited):
            if learn and not cost.tabulated:
                model = LearnedCost.of_past(past, cost.name, sizes)
                if model is not None:
                    self._learned[index] = model
        minimum = minimum_widths(problem.structure, problem.smallest)[None]
        self._growing = [
            (index, float(self._believed(index, minimum)[0]))
            for index, model in self._learned.items()
            if model.grows
        ]

    @property
    def learned(self) -> bool:
        """Whether a cost could be learned."""
        return bool(self._learned)

    @property
    def growing(self) -> bool:
        """Whether a cost could be learned that grows with the widths."""
        return bool(self._growing)

    def keep(self, widths: NDArray[np.int64], limits: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether learned costs that grow with the widths are believed to keep their limits.

        A limit below the cost of the narrowest candidate counts as that cost: no width keeps it.

        Args:
            widths: Units kept, int64 [N, G].
            limits: Of all budgets, float64 [N, B].

        Returns:
            bool [N].
        """
        kept = np.ones(len(widths), dtype=np.bool_)
        for index, narrowest in self._growing:
            kept &= self._believed(index, widths) <= np.maximum(limits[:, index], narrowest)
        return kept

    def violations(
        self, widths: NDArray[np.int64], limits: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """By what shares of their limits costs are believed to exceed them, summed over budgets.

        Args:
            widths: Units kept, int64 [N, G].
            limits: Of all budgets, float64 [N, B] or [B].

        Returns:
            float64 [N].
        """
        total = self.learned_violations(widths, limits)
        for index, cost in enumerate(self._problem.limited):
            if cost.tabulated:
                total += _exceeded(cost.fraction(widths), limits[..., index])
        return total

    def learned_violations(
        self, widths: NDArray[np.int64], limits: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The part of :meth:`violations` that is of learned costs; looked up much faster."""
        total = np.zeros(len(widths))
        for index in self._learned:
            total += _exceeded(self._believed(index, widths), limits[..., index])
        return total

    def _believed(self, index: int, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        model = self._learned[index]
        return model.predict(widths) + _ERRORS * model.error


def _exceeded(costs: NDArray[np.float64], limits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.maximum(0.0, costs / limits - 1.0))
