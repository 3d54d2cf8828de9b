"""Whole candidates from one action: proportions of the decisions, and how much of the budgets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....envs.problem import Problem
from ..scaling import common_factor, rescale, scaled
from .allocation import Sensitivity
from .believed_costs import BelievedCosts

__all__ = ["CandidateMap"]

# Action 0 spends this share of the limits, -1 and +1 so much less and more. The range is narrow
# so that the policy's noise moves costs by less than what a budget should be met to.
_SPENT, _SPENT_RANGE = 0.99, 0.05


class CandidateMap:
    """Map between one action per candidate and its values.

    The first D numbers of an action say how much of each decision stays: -1 is the smallest value,
    0 what the start keeps and +1 the dense network's, linear in between. The start is the uniform
    candidate of the limits or, where sensitivities are given, what they allocate. Where a budget
    is tabulated there is one number more, the spending: the proportions are scaled, all by one
    factor, until the tabulated cost nearest to its limit spends 94 % (action -1), 99 % (0) or
    104 % (+1) of it (our choice). Nothing holds it below 100 %: that is the agent's to learn.

    Without this scaling most of an agent's noise would move costs instead of comparing
    proportions at equal cost. Costs that only an evaluation reveals are scaled to as soon as they
    are learned, if they grow with the values; until then, and where there are only others, values
    are what the proportions say.

    Args:
        problem: What is searched.
        scale: Whether to scale at all.
        sensitivity: Decides the start; uniform when left out.
    """

    def __init__(
        self, problem: Problem, scale: bool = True, sensitivity: Sensitivity | None = None
    ) -> None:
        self._problem = problem
        self._sensitivity = sensitivity
        self._starts: dict[bytes, NDArray[np.float64]] = {}
        self._full, self._smallest = problem.space.sizes, problem.space.smallest
        self._scale = scale
        self._spends = scale and len(problem.tabulated) > 0
        self._tabulated = np.array([cost.tabulated for cost in problem.budgeted])
        # Not-a-number where a cost is not tabulated.
        self._least = np.array(
            [cost.fraction(self._smallest[None])[0] for cost in problem.budgeted]
        )

    @property
    def size(self) -> int:
        """Numbers of one action."""
        return len(self._full) + int(self._spends)

    def candidates(
        self,
        actions: NDArray[np.float64],
        limits: NDArray[np.float64],
        believed: BelievedCosts | None = None,
    ) -> NDArray[np.int64]:
        """Candidates for actions, int64 [N, D].

        Args:
            actions: Clipped to [-1, 1]; float64 [N, size].
            limits: Limits of the budgets, float64 [N, B].
            believed: What is known of costs that only an evaluation reveals.
        """
        decisions = len(self._full)
        action = np.clip(actions, -1.0, 1.0)
        proportions = action[:, :decisions]
        start = self._start(limits)
        below = start + proportions * (start - self._smallest / self._full)
        above = start + proportions * (1.0 - start)
        fractions = np.where(proportions < 0, below, above)
        if self._spends:
            spent = _SPENT + _SPENT_RANGE * action[:, decisions:]
            # What nothing can save must not be asked for: it would leave one of everything.
            asked = np.maximum(limits * spent, self._least)
            limits = np.where(self._tabulated, asked, limits)
        if self._scale and believed is not None and believed.growing:
            return _filled(self._problem, fractions, limits, believed)
        if self._spends:
            return rescale(self._problem, fractions, limits)
        candidates = np.rint(fractions * self._full).astype(np.int64)
        return np.clip(candidates, self._smallest, self._full)

    def _start(self, limits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fractions that the start keeps of every decision, float64 [N, D]."""
        if self._sensitivity is not None:
            asked = limits.tobytes()
            if asked not in self._starts:
                # The limits of a search are the same in every iteration.
                allocated = self._sensitivity.allocate(self._problem, limits)
                self._starts = {asked: allocated / self._full}
            return self._starts[asked]
        ones = np.ones((len(limits), len(self._full)))
        if len(self._problem.tabulated):
            fraction = common_factor(self._problem, ones, limits)
        else:
            fraction = limits.min(axis=1)
        return np.clip(fraction[:, None] * ones, self._smallest / self._full, 1.0)


def _filled(
    problem: Problem,
    fractions: NDArray[np.float64],
    limits: NDArray[np.float64],
    believed: BelievedCosts,
) -> NDArray[np.int64]:
    """Scale candidates by one factor, then go on with the decisions that it leaves room for.

    A cost that is computed in blocks of channels rises in steps: the decision that comes to one
    first would hold back all others. From there on it stays as it is, and the others grow on, one
    by one in the order in which one factor would reach them (our choice).
    """
    factors = common_factor(
        problem, fractions, limits, lambda candidates: believed.keep(candidates, limits)
    )
    candidates = scaled(problem, fractions, factors)
    sizes, rows = problem.space.sizes, np.arange(len(candidates))
    growing = np.ones(candidates.shape, dtype=np.bool_)
    while True:
        # Half a unit more is rounded up.
        reached = (candidates + 0.5) / np.maximum(fractions * sizes, 1e-9)
        reached = np.where(growing & (candidates < sizes), reached, np.inf)
        decision = reached.argmin(axis=1)
        possible = np.isfinite(reached[rows, decision])
        if not possible.any():
            return candidates
        larger = candidates.copy()
        larger[rows, decision] += possible
        kept = possible & problem.tabulated.keep(larger, limits) & believed.keep(larger, limits)
        candidates = np.where(kept[:, None], larger, candidates)
        growing[rows, decision] = kept
