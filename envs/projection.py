"""Whole candidates from one action: proportions of the groups, and how much of the budgets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .budget import minimum_widths
from .problem import PruningProblem
from .sensitivity import Sensitivity

__all__ = ["CandidateMap", "common_factor", "rescale"]

_BISECTIONS = 40
# Action 0 spends this share of the limits, -1 and +1 so much less and more. The range is narrow
# so that the policy's noise moves costs by less than what a budget should be met to.
_SPENT, _SPENT_RANGE = 0.99, 0.05


class CandidateMap:
    """Map between one action per candidate and its widths.

    The first G numbers of an action say how much of each group stays: -1 is the minimum width, 0
    what the start keeps and +1 the full width, linear in between. The start is the uniform
    candidate of the limits or, where sensitivities are given and a budget is tabulated, what they
    allocate. Where a budget is tabulated there is one number more, the spending: the proportions
    are scaled, all by one factor, until the tabulated cost nearest to its limit spends 94 %
    (action -1), 99 % (0) or 104 % (+1) of it (our choice). Nothing holds it below 100 %: that is
    the agent's to learn.

    Without this scaling most of an agent's noise would move costs instead of comparing
    proportions at equal cost. A cost that only an evaluation reveals cannot be scaled to; where
    there is no other, widths are what the proportions say.

    Args:
        problem: What is searched.
        scaled: Whether to scale where a budget is tabulated.
        sensitivity: Decides the start; uniform when left out.
    """

    def __init__(
        self,
        problem: PruningProblem,
        scaled: bool = True,
        sensitivity: Sensitivity | None = None,
    ) -> None:
        self._problem = problem
        self._sensitivity = sensitivity if len(problem.limits) else None
        self._starts: dict[bytes, NDArray[np.float64]] = {}
        self._full = problem.structure.sizes
        self._minimum = minimum_widths(problem.structure, problem.smallest)
        self._scaled = scaled and len(problem.limits) > 0
        narrowest = np.array([cost.fraction(self._minimum[None])[0] for cost in problem.limited])
        self._least = np.nan_to_num(narrowest)

    @property
    def size(self) -> int:
        """Numbers of one action."""
        return len(self._full) + int(self._scaled)

    def widths(
        self, actions: NDArray[np.float64], limits: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Widths of candidates, int64 [N, G].

        Args:
            actions: Clipped to [-1, 1]; float64 [N, size].
            limits: Limits of the budgets, float64 [N, B].
        """
        groups = len(self._full)
        action = np.clip(actions, -1.0, 1.0)
        proportions = action[:, :groups]
        start = self._start(limits)
        below = start + proportions * (start - self._minimum / self._full)
        above = start + proportions * (1.0 - start)
        fractions = np.where(proportions < 0, below, above)
        if self._scaled:
            spent = _SPENT + _SPENT_RANGE * action[:, groups:]
            # What no width can save must not be asked for: it would leave one unit of everything.
            return rescale(self._problem, fractions, np.maximum(limits * spent, self._least))
        widths = np.rint(fractions * self._full).astype(np.int64)
        return np.clip(widths, self._minimum, self._full)

    def _start(self, limits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fractions that the start keeps of every group, float64 [N, G]."""
        if self._sensitivity is not None:
            asked = limits.tobytes()
            if asked not in self._starts:
                # The limits of a search are the same in every iteration.
                allocated = self._sensitivity.allocate(self._problem, limits)
                self._starts = {asked: allocated / self._full}
            return self._starts[asked]
        ones = np.ones((len(limits), len(self._full)))
        if len(self._problem.limits):
            fraction = common_factor(self._problem, ones, limits)
        else:
            fraction = limits.min(axis=1)
        return np.clip(fraction[:, None] * ones, self._minimum / self._full, 1.0)


def rescale(
    problem: PruningProblem,
    fractions: NDArray[np.float64],
    limits: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Scale candidates by the largest common factor with which they meet the tabulated budgets.

    Args:
        problem: Its budgets; where none is tabulated nothing is scaled.
        fractions: Of the units of each group, in [0, 1], float64 [N, G].
        limits: As for :func:`common_factor`.

    Returns:
        Units kept, int64 [N, G].
    """
    if not len(problem.limits):
        return _scaled(problem, fractions, np.ones(len(fractions)))
    return _scaled(problem, fractions, common_factor(problem, fractions, limits))


def common_factor(
    problem: PruningProblem,
    fractions: NDArray[np.float64],
    limits: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """The largest factors with which candidates meet the tabulated budgets, found by bisection.

    Args:
        problem: Its budgets, at least one of them tabulated.
        fractions: Of the units of each group, in [0, 1], float64 [N, G].
        limits: Of all budgets, float64 [N, B]; those of the problem when left out.

    Returns:
        float64 [N], at most what makes every group full.
    """
    low = np.zeros(len(fractions))
    high = 1.0 / np.maximum(fractions.min(axis=1), 1e-3)
    full = problem.limits.keep(_scaled(problem, fractions, high), limits)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        kept = problem.limits.keep(_scaled(problem, fractions, middle), limits)
        low, high = np.where(kept, middle, low), np.where(kept, high, middle)
    return np.where(full, high, low)


def _scaled(
    problem: PruningProblem, fractions: NDArray[np.float64], factors: NDArray[np.float64]
) -> NDArray[np.int64]:
    sizes = problem.structure.sizes
    widths = np.rint(factors[:, None] * fractions * sizes).astype(np.int64)
    return np.clip(widths, minimum_widths(problem.structure, problem.smallest), sizes)
