"""From an action in [-1, 1] to a value, and the shield that keeps the budgets reachable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..models.costs.cost import Cost
from ..models.space import SearchSpace
from .budgets import Budget

__all__ = ["ActionMap", "TabulatedBudgets", "uniform_fraction"]

_BISECTIONS = 40


class TabulatedBudgets:
    """The budgets that can be looked up: whether candidates keep them, and the shield.

    Args:
        budgets: All budgets of the search.
        costs: The cost of every budget, in the same order.
    """

    def __init__(self, budgets: Sequence[Budget], costs: Sequence[Cost]) -> None:
        pairs = enumerate(zip(budgets, costs, strict=True))
        self._pairs = [(index, *pair) for index, pair in pairs if pair[1].tabulated]

    def __len__(self) -> int:
        return len(self._pairs)

    def keep(
        self, candidates: NDArray[np.int64], limits: NDArray[np.float64] | None = None
    ) -> NDArray[np.bool_]:
        """Whether complete candidates keep every tabulated budget.

        Args:
            candidates: int64 [N, D].
            limits: Limits of all budgets of the search, float64 [N, B]; their own when left out.

        Returns:
            bool [N].
        """
        kept = np.ones(len(candidates), dtype=np.bool_)
        for index, budget, cost in self._pairs:
            limit = budget.limit if limits is None else limits[:, index]
            kept &= cost.fraction(candidates) <= limit
        return kept

    def clip(
        self, candidates: NDArray[np.int64], step: int, smallest: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The shield: AMC's action wall (He et al. 2018, Algorithm 1) for several budgets at once.

        Lowers the value of this step just so far that the budgets can still be met if all later
        decisions take their smallest value. What it returns leaves them reachable whenever they
        were so before the step.

        Args:
            candidates: Values chosen so far and, in column ``step``, the proposal; int64 [N, D].
            step: The decision that is made.
            smallest: Smallest value per decision, int64 [D].

        Returns:
            Admissible values of the decision, int64 [N].
        """
        trial = candidates.copy()
        trial[:, step + 1 :] = smallest[step + 1 :]
        proposed = candidates[:, step].copy()
        blocked = ~self.keep(trial)
        low = np.where(blocked, smallest[step], proposed)
        high = proposed.copy()
        while np.any(high - low > 1):
            middle = (low + high) // 2
            trial[:, step] = middle
            kept = self.keep(trial)
            low = np.where(kept, middle, low)
            high = np.where(kept, high, middle)
        return low


class ActionMap:
    """Piecewise linear map between actions and values of decisions.

    -1 is the smallest value, 0 that of the uniform candidate that just meets the budgets and +1
    that of the dense network, so that a policy whose mean is 0 starts at the uniform candidate.

    Args:
        space: The decisions.
        start: Fraction of its size that action 0 keeps of every decision, in [0, 1].
    """

    def __init__(self, space: SearchSpace, start: float) -> None:
        self.full = space.sizes
        self.smallest = space.smallest
        self._start = np.clip(start * self.full, self.smallest, self.full).astype(np.float64)
        self.uniform = np.rint(self._start).astype(np.int64)

    def values(self, step: int, actions: NDArray[np.float64]) -> NDArray[np.int64]:
        """Values of decision ``step`` for actions [N], which are clipped to [-1, 1]; int64 [N]."""
        action = np.clip(actions, -1.0, 1.0)
        start = self._start[step]
        below = start + action * (start - self.smallest[step])
        above = start + action * (self.full[step] - start)
        values = np.rint(np.where(action < 0, below, above)).astype(np.int64)
        return np.clip(values, self.smallest[step], self.full[step])

    def actions(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Actions in [-1, 1] that lead to candidates [N, D]; float64 [N, D]."""
        candidates = np.clip(candidates, self.smallest, self.full)
        offset = candidates - self._start
        span = np.where(offset < 0, self._start - self.smallest, self.full - self._start)
        actions = np.divide(offset, span, out=np.zeros(offset.shape), where=span > 0)
        # The uniform value is the rounded start: its action is 0 and not the rounding error.
        return np.where(candidates == self.uniform, 0.0, actions)


def uniform_fraction(space: SearchSpace, budgets: Sequence[Budget], costs: Sequence[Cost]) -> float:
    """The largest fraction of its size that every decision can keep within the tabulated budgets.

    Found by bisection. Where no budget is tabulated there is nothing to look it up in, and the
    lowest limit itself is taken (our choice).

    Args:
        space: The decisions.
        budgets: All budgets of the search.
        costs: The cost of every budget, in the same order.

    Returns:
        A fraction in [0, 1]; rounding ``fraction * size`` gives a feasible candidate.
    """
    tabulated = TabulatedBudgets(budgets, costs)
    if not len(tabulated):
        return min(1.0, *(budget.limit for budget in budgets))

    def kept(fraction: float) -> bool:
        return bool(tabulated.keep(ActionMap(space, fraction).uniform[None])[0])

    if kept(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low
