"""Random candidates, scaled to the budgets: a strong baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.judge import Judge
from ...envs.problem import Outcome
from .agent import BlackBoxAgent
from .scaling import rescale

__all__ = ["RandomAgent"]


class RandomAgent(BlackBoxAgent):
    """Uniformly random values, all scaled by the largest factor that meets the budgets.

    Without the scaling almost no random candidate would be close to its budget; with it random
    search is a strong baseline. Limits of ranges take turns.

    Args:
        judge: Judges candidates.
        seed: Seeds the values.
        evaluations: Candidates that it may ask for in all.
        candidates: Candidates of one iteration.
    """

    name = "random"
    follows_ranges = True

    def __init__(self, judge: Judge, seed: int, evaluations: int, candidates: int = 32) -> None:
        super().__init__(judge, seed, evaluations, candidates)
        self._generator = np.random.default_rng(seed)
        self._asked = 0
        space = self.problem.space
        # At least 1 is what there is, and not what a user wants of every decision.
        self._lowest = np.where(space.smallest > 1, space.smallest / space.sizes, 0.0)

    def ask(self, count: int) -> NDArray[np.int64]:
        """See `BlackBoxAgent.ask`."""
        space, limits = self.problem.space, self.problem.limits
        fractions = self._generator.uniform(self._lowest, 1.0, (count, len(space)))
        turns = (self._asked + np.arange(count)) % len(limits)
        self._asked += count
        return rescale(self.problem, fractions, limits[turns])

    def tell(self, candidates: NDArray[np.int64], outcome: Outcome) -> None:
        """Nothing is learned."""

    def get_state(self) -> Any:
        """See `BlackBoxAgent.get_state`."""
        return self._generator.bit_generator.state, self._asked

    def set_state(self, state: Any) -> None:
        """See `BlackBoxAgent.set_state`."""
        self._generator.bit_generator.state, self._asked = state
