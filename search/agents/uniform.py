"""Uniform candidates: what every other agent has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.actions import uniform_fraction
from ...envs.judge import Judge
from ...envs.problem import Outcome
from .agent import BlackBoxAgent
from .scaling import common_factor

__all__ = ["UniformAgent"]


class UniformAgent(BlackBoxAgent):
    """Keeps one fraction of all decisions: the largest that meets the budgets, then smaller ones.

    It asks for few candidates, however many it may ask for: uniform candidates have one parameter.
    Where budgets are ranges it takes the largest fraction for each limit.

    Args:
        judge: Judges candidates.
        seed: Not used; nothing is random.
        evaluations: Candidates that it may ask for in all.
        fractions: Number of fractions, evenly spaced from the largest down to half of it.
    """

    name = "uniform"
    follows_ranges = True

    def __init__(self, judge: Judge, seed: int, evaluations: int, fractions: int = 8) -> None:
        super().__init__(judge, seed, evaluations, candidates=max(fractions, 1))
        problem = self.problem
        space = problem.space
        if len(problem.limits) > 1 and len(problem.tabulated):
            ones = np.ones((len(problem.limits), len(space)))
            scan = common_factor(problem, ones, problem.limits)
        else:
            largest = uniform_fraction(space, problem.budgets, problem.budgeted)
            scan = np.linspace(largest, largest / 2, max(fractions, 1))
        candidates = np.rint(scan[:, None] * space.sizes).astype(np.int64)
        candidates = np.clip(candidates, space.smallest, space.sizes)
        different = list(dict.fromkeys(map(tuple, candidates.tolist())))
        self._waiting = np.array(different, dtype=np.int64)
        self._asked = 0

    def ask(self, count: int) -> NDArray[np.int64]:
        """See `BlackBoxAgent.ask`."""
        candidates = self._waiting[self._asked : self._asked + count]
        self._asked += len(candidates)
        return candidates

    def tell(self, candidates: NDArray[np.int64], outcome: Outcome) -> None:
        """Nothing is learned."""

    def get_state(self) -> Any:
        """See `BlackBoxAgent.get_state`."""
        return self._asked

    def set_state(self, state: Any) -> None:
        """See `BlackBoxAgent.set_state`."""
        self._asked = int(state)
