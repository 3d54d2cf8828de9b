"""Candidates from sensitivities alone: what a search that starts from them has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.judge import Judge
from ...envs.problem import Outcome, Problem
from ...errors import SpecError
from .agent import BlackBoxAgent
from .together.allocation import Sensitivity, narrowings

__all__ = ["SensitivityAgent", "affordable_narrowings"]

_MOST_STEPS = 4
# At most this share of a search goes into sensitivities.
_SHARE = 0.2


def affordable_narrowings(problem: Problem, evaluations: int) -> NDArray[np.int64]:
    """The candidates of `narrowings` that a search can afford.

    Args:
        problem: What is searched.
        evaluations: Evaluations of the search, of which they take at most a fifth.

    Returns:
        int64 [K, D]; K is 0 where that is not enough for one value per decision.
    """
    decisions = len(problem.space)
    steps = min(_MOST_STEPS, (int(_SHARE * evaluations) - 1) // decisions)
    if steps < 1:
        return np.zeros((0, decisions), dtype=np.int64)
    return narrowings(problem, steps)


class SensitivityAgent(BlackBoxAgent):
    """Lowers one decision at a time and allocates values by what that lost; no search.

    The allocation of the budgets comes first, then those of smaller limits; where budgets are
    ranges, one for each limit. What it asks for in all does not depend on how much it may ask for
    beyond that.

    Args:
        judge: Judges candidates.
        seed: Not used; nothing is random.
        evaluations: Candidates that it may ask for in all.
        allocations: Number of limits, evenly spaced from the budgets' own down to nine tenths.

    Raises:
        SpecError: If the evaluations do not suffice for one value of every decision.
    """

    name = "sensitivity"
    follows_ranges = True

    def __init__(self, judge: Judge, seed: int, evaluations: int, allocations: int = 8) -> None:
        self._narrowed = affordable_narrowings(judge.problem, evaluations)
        if not len(self._narrowed):
            raise SpecError(
                "The agent 'sensitivity' needs evaluations of at least "
                f"{5 * (1 + len(judge.problem.space))} here; raise them or take another agent."
            )
        super().__init__(judge, seed, evaluations, candidates=len(self._narrowed))
        self._allocations = allocations
        self._waiting = self._narrowed
        self._sensitivity: Sensitivity | None = None

    def ask(self, count: int) -> NDArray[np.int64]:
        """See `BlackBoxAgent.ask`."""
        candidates, self._waiting = self._waiting[:count], self._waiting[count:]
        return candidates

    def tell(self, candidates: NDArray[np.int64], outcome: Outcome) -> None:
        """See `BlackBoxAgent.tell`."""
        if self._sensitivity is not None:
            return
        rewards, costs = outcome.rewards, outcome.costs
        self._sensitivity = Sensitivity.fit(self.problem, candidates, rewards, costs)
        shares = np.linspace(1.0, 0.9, self._allocations)
        limits = self.problem.limits
        if len(limits) == 1:
            limits = shares[:, None] * limits
        allocated = self._sensitivity.allocate(self.problem, limits)
        self._waiting = np.array(list(dict.fromkeys(map(tuple, allocated.tolist()))))

    def get_state(self) -> Any:
        """See `BlackBoxAgent.get_state`."""
        return self._waiting, self._sensitivity

    def set_state(self, state: Any) -> None:
        """See `BlackBoxAgent.set_state`."""
        self._waiting, self._sensitivity = state
