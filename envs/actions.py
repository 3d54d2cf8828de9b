"""From an action in [-1, 1] to a width, and the shield that keeps the budgets reachable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..models.costs.cost import Cost
from ..models.costs.tables import Structure
from .budgets import Budget, minimum_widths

__all__ = ["Limits", "WidthMap", "uniform_fraction"]

_BISECTIONS = 40


class Limits:
    """The tabulated budgets: what any widths cost and whether all limits are kept.

    Args:
        budgets: All budgets of the search.
        costs: Cost of every budget, in the same order.
    """

    def __init__(self, budgets: Sequence[Budget], costs: Sequence[Cost]) -> None:
        pairs = enumerate(zip(budgets, costs, strict=True))
        self._pairs = [(index, *pair) for index, pair in pairs if pair[1].tabulated]

    def __len__(self) -> int:
        return len(self._pairs)

    def keep(
        self, widths: NDArray[np.int64], limits: NDArray[np.float64] | None = None
    ) -> NDArray[np.bool_]:
        """Whether complete candidates keep every tabulated budget.

        Args:
            widths: Units kept, int64 [N, G].
            limits: Of all budgets of the search, float64 [N, B]; their own when left out.

        Returns:
            bool [N].
        """
        kept = np.ones(len(widths), dtype=np.bool_)
        for index, budget, cost in self._pairs:
            limit = budget.limit if limits is None else limits[:, index]
            kept &= cost.fraction(widths) <= limit
        return kept

    def clip(
        self, widths: NDArray[np.int64], step: int, minimum: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The shield: AMC's action wall (He et al. 2018, Algorithm 1) for several budgets at once.

        Narrows the group of this step just so far that the budgets can still be met if all later
        groups take their minimum width. What it returns leaves them reachable whenever they were
        so before the step.

        Args:
            widths: Widths chosen so far and, in column ``step``, the proposal; int64 [N, G].
            step: The group being decided.
            minimum: Smallest width per group, int64 [G].

        Returns:
            Admissible widths of the group, int64 [N].
        """
        trial = widths.copy()
        trial[:, step + 1 :] = minimum[step + 1 :]
        proposed = widths[:, step].copy()
        blocked = ~self.keep(trial)
        low = np.where(blocked, minimum[step], proposed)
        high = proposed.copy()
        while np.any(high - low > 1):
            middle = (low + high) // 2
            trial[:, step] = middle
            kept = self.keep(trial)
            low = np.where(kept, middle, low)
            high = np.where(kept, high, middle)
        return low


class WidthMap:
    """Piecewise linear map between actions and widths.

    -1 is the minimum width, 0 the uniform width that just meets the budgets and +1 the full
    width, so that a policy whose mean is 0 starts at the uniform candidate.

    Args:
        structure: Tables of the network.
        start: Fraction of its units that action 0 keeps of every group, in [0, 1].
        smallest: Fraction of its units that every group keeps at least, in [0, 1].
    """

    def __init__(self, structure: Structure, start: float, smallest: float = 0.0) -> None:
        self.full = structure.sizes
        self.minimum = minimum_widths(structure, smallest)
        self._start = np.clip(start * self.full, self.minimum, self.full).astype(np.float64)
        self.uniform = np.rint(self._start).astype(np.int64)

    def widths(self, step: int, actions: NDArray[np.float64]) -> NDArray[np.int64]:
        """Widths of group ``step`` for actions [N], which are clipped to [-1, 1]; int64 [N]."""
        action = np.clip(actions, -1.0, 1.0)
        start = self._start[step]
        below = start + action * (start - self.minimum[step])
        above = start + action * (self.full[step] - start)
        widths = np.rint(np.where(action < 0, below, above)).astype(np.int64)
        return np.clip(widths, self.minimum[step], self.full[step])

    def actions(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Actions in [-1, 1] that lead to widths [N, G]; float64 [N, G]."""
        widths = np.clip(widths, self.minimum, self.full)
        offset = widths - self._start
        span = np.where(offset < 0, self._start - self.minimum, self.full - self._start)
        actions = np.divide(offset, span, out=np.zeros(offset.shape), where=span > 0)
        # The uniform width is the rounded start: its action is 0 and not the rounding error.
        return np.where(widths == self.uniform, 0.0, actions)


def uniform_fraction(
    structure: Structure,
    budgets: Sequence[Budget],
    costs: Sequence[Cost],
    smallest: float = 0.0,
) -> float:
    """The largest fraction of units that every group can keep within the tabulated budgets.

    Found by bisection. Where no budget is tabulated there is nothing to look it up in, and the
    lowest limit itself is taken (our choice).

    Args:
        structure: Tables of the network.
        budgets: All budgets of the search.
        costs: Cost of every budget, in the same order.
        smallest: Fraction of its units that every group keeps at least, in [0, 1].

    Returns:
        A fraction in [0, 1]; rounding ``fraction * size`` to units gives a feasible candidate.
    """
    limits = Limits(budgets, costs)
    if not len(limits):
        return max(smallest, min(budget.limit for budget in budgets))

    def kept(fraction: float) -> bool:
        return bool(limits.keep(WidthMap(structure, fraction, smallest).uniform[None])[0])

    if kept(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low
