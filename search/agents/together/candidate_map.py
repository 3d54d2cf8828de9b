"""Whole candidates from one action: proportions of the groups, and how much of the budgets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....envs.budgets import minimum_widths
from ....envs.problem import PruningProblem
from .allocation import Sensitivity
from .believed import BelievedCosts

__all__ = ["CandidateMap", "common_factor", "rescale"]

_BISECTIONS = 40
# Action 0 spends this share of the limits, -1 and +1 so much less and more. The range is narrow
# so that the policy's noise moves costs by less than what a budget should be met to.
_SPENT, _SPENT_RANGE = 0.99, 0.05


class CandidateMap:
    """Map between one action per candidate and its widths.

    The first G numbers of an action say how much of each group stays: -1 is the minimum width, 0
    what the start keeps and +1 the full width, linear in between. The start is the uniform
    candidate of the limits or, where sensitivities are given, what they allocate. Where a budget
    is tabulated there is one number more, the spending: the proportions are scaled, all by one
    factor, until the tabulated cost nearest to its limit spends 94 % (action -1), 99 % (0) or
    104 % (+1) of it (our choice). Nothing holds it below 100 %: that is the agent's to learn.

    Without this scaling most of an agent's noise would move costs instead of comparing
    proportions at equal cost. Costs that only an evaluation reveals are scaled to as soon as they
    are learned, if they grow with the widths; until then, and where there are only others, widths
    are what the proportions say.

    Args:
        problem: What is searched.
        scaled: Whether to scale at all.
        sensitivity: Decides the start; uniform when left out.
    """

    def __init__(
        self,
        problem: PruningProblem,
        scaled: bool = True,
        sensitivity: Sensitivity | None = None,
    ) -> None:
        self._problem = problem
        self._sensitivity = sensitivity
        self._starts: dict[bytes, NDArray[np.float64]] = {}
        self._full = problem.structure.sizes
        self._minimum = minimum_widths(problem.structure, problem.smallest)
        self._scaled = scaled
        self._spends = scaled and len(problem.limits) > 0
        self._tabulated = np.array([cost.tabulated for cost in problem.limited])
        # Not-a-number where a cost is not tabulated.
        self._least = np.array([cost.fraction(self._minimum[None])[0] for cost in problem.limited])

    @property
    def size(self) -> int:
        """Numbers of one action."""
        return len(self._full) + int(self._spends)

    def widths(
        self,
        actions: NDArray[np.float64],
        limits: NDArray[np.float64],
        believed: BelievedCosts | None = None,
    ) -> NDArray[np.int64]:
        """Widths of candidates, int64 [N, G].

        Args:
            actions: Clipped to [-1, 1]; float64 [N, size].
            limits: Limits of the budgets, float64 [N, B].
            believed: What is known of costs that only an evaluation reveals.
        """
        groups = len(self._full)
        action = np.clip(actions, -1.0, 1.0)
        proportions = action[:, :groups]
        start = self._start(limits)
        below = start + proportions * (start - self._minimum / self._full)
        above = start + proportions * (1.0 - start)
        fractions = np.where(proportions < 0, below, above)
        if self._spends:
            spent = _SPENT + _SPENT_RANGE * action[:, groups:]
            # What no width can save must not be asked for: it would leave one unit of everything.
            asked = np.maximum(limits * spent, self._least)
            limits = np.where(self._tabulated, asked, limits)
        if self._scaled and believed is not None and believed.growing:
            return _filled(self._problem, fractions, limits, believed)
        if self._spends:
            return rescale(self._problem, fractions, limits)
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
    believed: BelievedCosts | None = None,
) -> NDArray[np.float64]:
    """The largest factors with which candidates meet their budgets, found by bisection.

    These are the tabulated budgets and, if told what is believed of them, those of learned costs
    that grow with the widths; there has to be one of either.

    Args:
        problem: Its budgets.
        fractions: Of the units of each group, in [0, 1], float64 [N, G].
        limits: Of all budgets, float64 [N, B]; those of the problem when left out.
        believed: What is known of costs that only an evaluation reveals.

    Returns:
        float64 [N], at most what makes every group full.
    """
    if limits is None:
        limits = np.repeat(problem.front[-1:], len(fractions), axis=0)

    def keep(factors: NDArray[np.float64]) -> NDArray[np.bool_]:
        widths = _scaled(problem, fractions, factors)
        kept = problem.limits.keep(widths, limits)
        return kept if believed is None else kept & believed.keep(widths, limits)

    low = np.zeros(len(fractions))
    high = 1.0 / np.maximum(fractions.min(axis=1), 1e-3)
    full = keep(high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        kept = keep(middle)
        low, high = np.where(kept, middle, low), np.where(kept, high, middle)
    return np.where(full, high, low)


def _filled(
    problem: PruningProblem,
    fractions: NDArray[np.float64],
    limits: NDArray[np.float64],
    believed: BelievedCosts,
) -> NDArray[np.int64]:
    """Scale candidates by one factor, then go on with the groups that it still leaves room for.

    A cost that is computed in blocks of channels rises in steps: the group that comes to one first
    would hold back all others. From there on it stays as it is, and the others grow on, unit by
    unit in the order in which one factor would reach them (our choice).
    """
    widths = _scaled(problem, fractions, common_factor(problem, fractions, limits, believed))
    sizes, rows = problem.structure.sizes, np.arange(len(widths))
    growing = np.ones(widths.shape, dtype=np.bool_)
    while True:
        # Half a unit more is rounded up.
        factors = (widths + 0.5) / np.maximum(fractions * sizes, 1e-9)
        factors = np.where(growing & (widths < sizes), factors, np.inf)
        group = factors.argmin(axis=1)
        possible = np.isfinite(factors[rows, group])
        if not possible.any():
            return widths
        wider = widths.copy()
        wider[rows, group] += possible
        kept = possible & problem.limits.keep(wider, limits) & believed.keep(wider, limits)
        widths = np.where(kept[:, None], wider, widths)
        growing[rows, group] = kept


def _scaled(
    problem: PruningProblem, fractions: NDArray[np.float64], factors: NDArray[np.float64]
) -> NDArray[np.int64]:
    sizes = problem.structure.sizes
    widths = np.rint(factors[:, None] * fractions * sizes).astype(np.int64)
    return np.clip(widths, minimum_widths(problem.structure, problem.smallest), sizes)
