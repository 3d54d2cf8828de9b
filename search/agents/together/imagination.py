"""Many candidates for the evaluations of a few: which to evaluate, what others are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....envs.judge import Judge
from ....envs.problem import Outcome
from .believed_costs import BelievedCosts
from .cost_surrogate import MOST_LEARNED, LearnedCost
from .reward_surrogate import LearnedReward, RewardKernel

__all__ = ["Imagination", "Judged"]


@dataclass(frozen=True)
class Judged:
    """What became of N candidates, evaluated or imagined.

    Attributes:
        signals: What a learning agent is told of them, float64 [N].
        costs: Fractions of the dense network's cost per budget, float64 [N, B].
    """

    signals: NDArray[np.float64]
    costs: NDArray[np.float64]


class Imagination:
    """Learns from all that a search has evaluated what its next candidates are worth.

    Evaluations are what a search pays for, and a policy learns from many samples. So of N
    candidates the most promising are evaluated, and of the others rewards and costs are predicted
    (as Dyna learns from a model's experience, Sutton 1991; the models are our choice). Being
    evaluated where the model promises most, it is corrected there first.

    Everything is worked out from the judge's past, so that a restored search goes on as it would
    have.

    Args:
        judge: Knows what the search has asked for.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._sizes = judge.problem.space.sizes
        self._kernel = RewardKernel()

    def choose(
        self,
        believed: BelievedCosts,
        candidates: NDArray[np.int64],
        limits: NDArray[np.float64],
        contexts: NDArray[np.int64],
        count: int,
    ) -> NDArray[np.int64]:
        """Which candidates to evaluate.

        Those not evaluated before come first, then those believed to exceed limits least, then
        those whose reward may be highest.

        Args:
            believed: What is known of their costs.
            candidates: int64 [N, D].
            limits: What each has to keep, float64 [N, B].
            contexts: Which set of limits that is, 0 to K - 1; each gets as many evaluations as
                the others, but for one. int64 [N].
            count: How many, at most N.

        Returns:
            Ascending indices, int64 [count].
        """
        past = self._judge.past
        model = self._reward_model()
        promises = np.zeros(len(candidates)) if model is None else model.upper_bounds(candidates)
        exceeded = believed.violations(candidates, limits)
        order = np.lexsort((-promises, exceeded, _again(candidates, past.candidates)))
        quotas = np.bincount(np.arange(count) % (contexts.max() + 1))
        chosen = [order[contexts[order] == context][:quota] for context, quota in enumerate(quotas)]
        return np.sort(np.concatenate(chosen))

    def complete(
        self,
        candidates: NDArray[np.int64],
        limits: NDArray[np.float64],
        chosen: NDArray[np.int64],
        outcome: Outcome,
        best: float,
    ) -> Judged:
        """Predict what was not evaluated, from everything that was.

        Args:
            candidates: All of them, int64 [N, D].
            limits: What each has to keep, float64 [N, B].
            chosen: Which were evaluated, int64 [M], at least one; the judge has them in its past.
            outcome: What became of these.
            best: The highest reward of a feasible candidate before them.
        """
        problem, past = self._judge.problem, self._judge.past
        model = self._reward_model()
        # Where every evaluation has failed nothing is known, and all are worth the same.
        rewards = np.zeros(len(candidates)) if model is None else model.predict(candidates)
        rewards[chosen] = outcome.rewards
        costs = np.empty(limits.shape)
        for index, cost in enumerate(problem.budgeted):
            if cost.tabulated:
                costs[:, index] = cost.fraction(candidates)
                continue
            paid = past.costs(cost.name)
            known = np.flatnonzero(np.isfinite(paid))[-MOST_LEARNED:]
            if len(known):
                learned = LearnedCost(past.candidates[known], paid[known], self._sizes)
                costs[:, index] = learned.predict(candidates)
            else:
                costs[:, index] = np.maximum(1.0, limits[:, index])
        costs[chosen] = outcome.costs
        feasible = np.all(costs <= limits, axis=1)
        feasible[chosen] = outcome.feasible
        return Judged(problem.reward.signals(rewards, feasible, best), costs)

    def _reward_model(self) -> LearnedReward | None:
        """A model of all rewards that are known; ``None`` where there is none."""
        past = self._judge.past
        known = np.isfinite(past.rewards)
        if not known.any():
            return None
        seen, sizes = (past.candidates[known], past.rewards[known]), self._sizes
        return LearnedReward(*seen, sizes, self._kernel.fit(*seen, sizes))


def _again(candidates: NDArray[np.int64], past: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a candidate was evaluated before or is the same as an earlier one, bool [N]."""
    seen = {tuple(row) for row in past.tolist()}
    again = []
    for row in map(tuple, candidates.tolist()):
        again.append(row in seen)
        seen.add(row)
    return np.array(again)
