"""N episodes in lock step: the core that the single and the vector environment share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .observation import budget_features, group_features
from .problem import Outcome, PruningProblem

__all__ = ["Episodes", "Step"]


@dataclass(frozen=True)
class Step:
    """What one step of N episodes gives.

    Attributes:
        observations: float32 [N, D].
        rewards: 0 until the last step, float64 [N].
        costs: What became known of each budget's cost at this step, float64 [N, B].
        outcome: How the candidates were judged, at the last step only.
    """

    observations: NDArray[np.float32]
    rewards: NDArray[np.float64]
    costs: NDArray[np.float64]
    outcome: Outcome | None


class Episodes:
    """N candidates decided group by group, all at the same group.

    Args:
        problem: What is searched.
        count: Number of episodes N.
    """

    def __init__(self, problem: PruningProblem, count: int) -> None:
        self._problem = problem
        self._count = count
        self._map = problem.width_map
        self._features = group_features(problem.structure, problem.sensitivity)
        self._limits = np.array([budget.limit for budget in problem.budgets], dtype=np.float64)
        self.reset()

    @property
    def length(self) -> int:
        """Steps of an episode: the number of groups."""
        return len(self._problem.structure.groups)

    @property
    def candidates(self) -> NDArray[np.int64]:
        """Candidates as decided so far, int64 [N, G]; groups not decided yet are uniform."""
        return self._widths.copy()

    def reset(self) -> NDArray[np.float32]:
        """Begin N new candidates and return their observations, float32 [N, D]."""
        self._step = 0
        self._widths = np.repeat(self._map.uniform[None], self._count, axis=0)
        self._spent = np.zeros((self._count, len(self._limits)))
        # AMC starts with an action that keeps everything; ours starts at the uniform width.
        self._previous = np.zeros(self._count)
        return self._observe()

    def step(self, actions: NDArray[np.floating]) -> Step:
        """Decide the next group of every candidate; the last step evaluates them all.

        Args:
            actions: In [-1, 1] (clipped), float [N].

        Raises:
            RuntimeError: If the episodes are over.
            EvaluationError: See :meth:`PruningProblem.judge`.
        """
        if self._step == self.length:
            raise RuntimeError("The episode is over: call reset first.")
        at = self._step
        widths = self._widths
        widths[:, at] = self._map.widths(at, np.asarray(actions, dtype=np.float64))
        if self._problem.shield:
            widths[:, at] = self._problem.limits.clip(widths, at, self._map.minimum)
        self._previous = self._map.actions(widths)[:, at]
        self._step += 1
        if self._step < self.length:
            costs = self._charge(at)
            return Step(self._observe(), np.zeros(self._count), costs, None)
        outcome = self._problem.judge(widths)
        # The last step takes what is left of the total, whether tabulated or only now measured.
        costs = outcome.costs - self._spent
        self._spent = outcome.costs.copy()
        return Step(self._observe(), outcome.signals, costs, outcome)

    def _charge(self, at: int) -> NDArray[np.float64]:
        costs = np.stack([c.shares(self._widths)[:, at] for c in self._problem.limited], axis=1)
        self._spent += costs
        return costs

    def _observe(self) -> NDArray[np.float32]:
        group = min(self._step, self.length - 1)
        static = np.repeat(self._features[group][None], self._count, axis=0)
        state = budget_features(
            self._limits,
            self._spent,
            self._total(self._map.minimum),
            self._total(self._map.uniform),
            self._total(self._map.full),
        )
        previous = self._previous[:, None].astype(np.float32)
        return np.concatenate([static, previous, state], axis=1)

    def _total(self, rest: NDArray[np.int64]) -> NDArray[np.float64]:
        widths = self._widths.copy()
        widths[:, self._step :] = rest[self._step :]
        return np.stack([cost.fraction(widths) for cost in self._problem.limited], axis=1)
