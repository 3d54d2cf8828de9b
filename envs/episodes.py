"""N episodes in lock step: the core that the single and the vector environment share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .judge import Judge
from .observation import budget_features
from .problem import Outcome, Problem

__all__ = ["Episodes", "Step"]


@dataclass(frozen=True)
class Step:
    """What one step of N episodes gives.

    Attributes:
        observations: float32 [N, O].
        rewards: 0 until the last step, float64 [N].
        costs: What became known of each budget's cost at this step, float64 [N, B].
        outcome: How the candidates were judged, at the last step only.
    """

    observations: NDArray[np.float32]
    rewards: NDArray[np.float64]
    costs: NDArray[np.float64]
    outcome: Outcome | None


class Episodes:
    """N candidates decided value by value, all at the same decision.

    Args:
        problem: What is searched.
        count: Number of episodes N.
        judge: Judges complete candidates; without one only unfinished episodes can be played.
    """

    def __init__(self, problem: Problem, count: int, judge: Judge | None = None) -> None:
        self.judge = judge
        self._problem = problem
        self._count = count
        self._map = problem.action_map
        self._limits = np.array([budget.limit for budget in problem.budgets], dtype=np.float64)
        self.reset()

    @property
    def length(self) -> int:
        """Steps of an episode: the number of decisions."""
        return len(self._problem.space)

    @property
    def candidates(self) -> NDArray[np.int64]:
        """Candidates as decided so far, int64 [N, D]; what is not decided yet is uniform."""
        return self._candidates.copy()

    def reset(self) -> NDArray[np.float32]:
        """Begin N new candidates and return their observations, float32 [N, O]."""
        self._step = 0
        self._candidates = np.repeat(self._map.uniform[None], self._count, axis=0)
        self._spent = np.zeros((self._count, len(self._limits)))
        # AMC starts with an action that keeps everything; ours starts at the uniform value.
        self._previous = np.zeros(self._count)
        return self._observe()

    def step(self, actions: NDArray[np.floating]) -> Step:
        """Make the next decision of every candidate; the last step has them all judged.

        Args:
            actions: In [-1, 1] (clipped), float [N].

        Raises:
            RuntimeError: If the episodes are over, or end without a judge.
            PruneTuneError: As `Judge.ask`.
        """
        if self._step == self.length:
            raise RuntimeError("The episode is over: call reset first.")
        at = self._step
        candidates = self._candidates
        candidates[:, at] = self._map.values(at, np.asarray(actions, dtype=np.float64))
        if self._problem.shield:
            candidates[:, at] = self._problem.tabulated.clip(candidates, at, self._map.smallest)
        self._previous = self._map.actions(candidates)[:, at]
        self._step += 1
        if self._step < self.length:
            costs = self._charge(at)
            return Step(self._observe(), np.zeros(self._count), costs, None)
        if self.judge is None:
            raise RuntimeError("The episodes have nobody to judge their candidates.")
        outcome = self.judge.ask(candidates.copy())
        # The last step takes what is left of the total, whether tabulated or only now measured.
        costs = outcome.costs - self._spent
        self._spent = outcome.costs.copy()
        return Step(self._observe(), outcome.signals, costs, outcome)

    def _charge(self, at: int) -> NDArray[np.float64]:
        costs = np.stack(
            [cost.shares(self._candidates)[:, at] for cost in self._problem.budgeted], axis=1
        )
        self._spent += costs
        return costs

    def _observe(self) -> NDArray[np.float32]:
        decision = min(self._step, self.length - 1)
        static = np.repeat(self._problem.features[decision][None], self._count, axis=0)
        state = budget_features(
            self._limits,
            self._spent,
            self._total(self._map.smallest),
            self._total(self._map.uniform),
            self._total(self._map.full),
        )
        previous = self._previous[:, None].astype(np.float32)
        return np.concatenate([static, previous, state], axis=1)

    def _total(self, rest: NDArray[np.int64]) -> NDArray[np.float64]:
        candidates = self._candidates.copy()
        candidates[:, self._step :] = rest[self._step :]
        return np.stack([cost.fraction(candidates) for cost in self._problem.budgeted], axis=1)
