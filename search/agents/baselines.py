"""Agents that do not learn: what every other agent has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.actions import uniform_fraction
from ...envs.budgets import minimum_widths
from ...envs.problem import Outcome, PruningProblem
from .agent import BlackBoxAgent
from .together.candidate_map import common_factor, rescale

__all__ = ["RandomAgent", "UniformAgent"]


class UniformAgent(BlackBoxAgent):
    """Keeps one fraction of all groups: the largest that meets the budgets, then smaller ones.

    Asks for few candidates, however many it may ask for: uniform widths have one parameter. Of
    ranges of budgets it takes the largest fraction for each limit.

    Args:
        problem: What is searched.
        seed: Not used; nothing is random.
        evaluations: Candidates that it may ask for in all.
        fractions: Number of fractions, evenly spaced from the largest down to half of it.
    """

    name = "uniform"
    follows_ranges = True

    def __init__(
        self, problem: PruningProblem, seed: int, evaluations: int, fractions: int = 8
    ) -> None:
        super().__init__(problem, seed, evaluations, candidates=max(fractions, 1))
        sizes = problem.structure.sizes
        if len(problem.front) > 1 and len(problem.limits):
            ones = np.ones((len(problem.front), len(sizes)))
            scan = common_factor(problem, ones, problem.front)
        else:
            largest = uniform_fraction(
                problem.structure, problem.budgets, problem.limited, problem.smallest
            )
            scan = np.linspace(largest, largest / 2, max(fractions, 1))
        widths = np.rint(scan[:, None] * sizes).astype(np.int64)
        widths = np.clip(widths, minimum_widths(problem.structure, problem.smallest), sizes)
        self._widths = np.array(list(dict.fromkeys(map(tuple, widths.tolist()))), dtype=np.int64)
        self._asked = 0

    def ask(self, count: int) -> NDArray[np.int64]:
        """See `BlackBoxAgent.ask`."""
        widths = self._widths[self._asked : self._asked + count]
        self._asked += len(widths)
        return widths

    def tell(self, widths: NDArray[np.int64], outcome: Outcome) -> None:
        """Nothing is learned."""

    def get_state(self) -> Any:
        """See `BlackBoxAgent.get_state`."""
        return self._asked

    def set_state(self, state: Any) -> None:
        """See `BlackBoxAgent.set_state`."""
        self._asked = int(state)


class RandomAgent(BlackBoxAgent):
    """Uniformly random widths, all scaled by the largest factor that meets the budgets.

    Without the scaling almost no random candidate would be close to its budget; with it random
    search is a strong baseline. Limits of ranges take turns.

    Args:
        problem: What is searched.
        seed: Of the widths.
        evaluations: Candidates that it may ask for in all.
        candidates: Candidates of one iteration.
    """

    name = "random"
    follows_ranges = True

    def __init__(
        self, problem: PruningProblem, seed: int, evaluations: int, candidates: int = 32
    ) -> None:
        super().__init__(problem, seed, evaluations, candidates)
        self._generator = np.random.default_rng(seed)
        self._asked = 0

    def ask(self, count: int) -> NDArray[np.int64]:
        """See `BlackBoxAgent.ask`."""
        sizes = self.problem.structure.sizes
        fractions = self._generator.uniform(self.problem.smallest, 1.0, (count, len(sizes)))
        front = self.problem.front
        turns = (self._asked + np.arange(count)) % len(front)
        self._asked += count
        return rescale(self.problem, fractions, front[turns])

    def tell(self, widths: NDArray[np.int64], outcome: Outcome) -> None:
        """Nothing is learned."""

    def get_state(self) -> Any:
        """See `BlackBoxAgent.get_state`."""
        return self._generator.bit_generator.state, self._asked

    def set_state(self, state: Any) -> None:
        """See `BlackBoxAgent.set_state`."""
        self._generator.bit_generator.state, self._asked = state
