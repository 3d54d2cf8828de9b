"""Many candidates for the evaluations of a few: which to evaluate, what others are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....envs.problem import Outcome, PruningProblem
from .believed import BelievedCosts
from .learned_costs import LearnedCost
from .learned_rewards import LearnedReward, RewardKernel

__all__ = ["Imagination", "Judged"]


@dataclass(frozen=True)
class Judged:
    """What became of N candidates, evaluated or imagined.

    Attributes:
        signals: What a learning agent is told of them, float64 [N].
        costs: Fractions of dense per budget, float64 [N, B].
        feasible: Whether all budgets are kept, bool [N].
    """

    signals: NDArray[np.float64]
    costs: NDArray[np.float64]
    feasible: NDArray[np.bool_]


class Imagination:
    """Learns from all that a search has evaluated what its next candidates are worth.

    Evaluations are what a search pays for, and a policy learns from many samples. So of N
    candidates the most promising are evaluated, and of the others rewards and costs are predicted
    (as Dyna learns from a model's experience, Sutton 1991; the models are our choice). Being
    evaluated where the model promises most, it is corrected there first.

    Everything is worked out from the problem's past, so that a restored search goes on as it would
    have.

    Args:
        problem: What is searched.
    """

    def __init__(self, problem: PruningProblem) -> None:
        self._problem = problem
        self._sizes = problem.structure.sizes
        self._kernel = RewardKernel()

    def choose(
        self,
        believed: BelievedCosts,
        widths: NDArray[np.int64],
        limits: NDArray[np.float64],
        contexts: NDArray[np.int64],
        count: int,
    ) -> NDArray[np.int64]:
        """Which candidates to evaluate.

        Those not evaluated before come first, then those believed to exceed limits least, then
        those whose reward may be highest.

        Args:
            believed: What is known of their costs.
            widths: Units kept, int64 [N, G].
            limits: What each has to keep, float64 [N, B].
            contexts: Which limits these are, 0 to K - 1; each gets as many evaluations as the
                others, but for one. int64 [N].
            count: How many, at most N.

        Returns:
            Ascending indices, int64 [count].
        """
        past = self._problem.past()
        known = np.isfinite(past.rewards)
        promises = np.zeros(len(widths))
        if known.any():
            seen, sizes = (past.candidates[known], past.rewards[known]), self._sizes
            model = LearnedReward(*seen, sizes, self._kernel.fit(*seen, sizes))
            promises = model.upper_bounds(widths)
        exceeded = believed.violations(widths, limits)
        order = np.lexsort((-promises, exceeded, _again(widths, past.candidates)))
        quotas = np.bincount(np.arange(count) % (contexts.max() + 1))
        chosen = [order[contexts[order] == context][:quota] for context, quota in enumerate(quotas)]
        return np.sort(np.concatenate(chosen))

    def complete(
        self,
        widths: NDArray[np.int64],
        limits: NDArray[np.float64],
        chosen: NDArray[np.int64],
        outcome: Outcome,
    ) -> Judged:
        """Predict what was not evaluated, from the past and from what was.

        Args:
            widths: Of all candidates, int64 [N, G].
            limits: What each has to keep, float64 [N, B].
            chosen: Which were evaluated, int64 [M], at least one.
            outcome: What became of these.
        """
        problem, past = self._problem, self._problem.past()
        succeeded = np.array([each.error is None for each in outcome.evaluations])
        if not succeeded.any():
            succeeded = ~succeeded
        new, known = widths[chosen][succeeded], np.isfinite(past.rewards)
        seen = _joined(past.candidates, past.rewards, new, outcome.rewards[succeeded])
        if known.any():
            # With several env runners nobody sees all that is new, but everybody the same past.
            kernel = self._kernel.fit(past.candidates[known], past.rewards[known], self._sizes)
        else:
            kernel = RewardKernel().fit(*seen, self._sizes)
        rewards = LearnedReward(*seen, self._sizes, kernel).predict(widths)
        rewards[chosen] = outcome.rewards
        costs = np.empty(limits.shape)
        for index, cost in enumerate(problem.limited):
            if cost.tabulated:
                costs[:, index] = cost.fraction(widths)
            else:
                before = past.costs.get(cost.name, np.full(len(past.candidates), np.nan))
                paid = _joined(past.candidates, before, new, outcome.costs[succeeded, index])
                costs[:, index] = LearnedCost(*paid, self._sizes).predict(widths)
        costs[chosen] = outcome.costs
        feasible = np.all(costs <= limits, axis=1)
        feasible[chosen] = outcome.feasible
        return Judged(problem.reward.signals(rewards, feasible, problem.best()), costs, feasible)


def _again(widths: NDArray[np.int64], past: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a candidate was evaluated before or is the same as an earlier one, bool [N]."""
    seen = {tuple(row) for row in past.tolist()}
    again = []
    for row in map(tuple, widths.tolist()):
        again.append(row in seen)
        seen.add(row)
    return np.array(again)


def _joined(
    past: NDArray[np.int64],
    values: NDArray[np.float64],
    new: NDArray[np.int64],
    new_values: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Candidates of the past whose value is known, and new ones."""
    known = np.isfinite(values)
    if not known.any():
        return new, new_values
    return np.concatenate([past[known], new]), np.concatenate([values[known], new_values])
