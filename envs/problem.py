"""What a search is about, and how an evaluated candidate is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .._nearest import pick
from ..errors import EvaluationError
from ..models.costs.cost import Cost
from ..models.space import SearchSpace
from ..rewards.evaluation.evaluation import Evaluation
from ..rewards.reward import Reward, score
from .actions import ActionMap, TabulatedBudgets, uniform_fraction
from .budgets import Budget, front_limits

__all__ = ["Outcome", "Problem"]


@dataclass(frozen=True)
class Outcome:
    """What became of N candidates.

    Attributes:
        rewards: Finite, float64 [N]. A candidate whose evaluation failed, or one of whose measures
            that the reward reads is not finite, gets the lowest of the batch, 0 if all failed
            (our choice).
        signals: What a learning agent is told of them, float64 [N]; see `Reward.signals`.
        costs: Fractions of the dense network's cost per budget, float64 [N, B]. A measured cost
            of a candidate whose evaluation failed is 1, or the limit where that is more (our
            choice).
        feasible: Whether all budgets are kept and the evaluation succeeded, bool [N].
        succeeded: Whether the reward could be computed, bool [N].
        evaluations: The evaluations themselves.
    """

    rewards: NDArray[np.float64]
    signals: NDArray[np.float64]
    costs: NDArray[np.float64]
    feasible: NDArray[np.bool_]
    succeeded: NDArray[np.bool_]
    evaluations: tuple[Evaluation, ...]


@dataclass(frozen=True)
class Problem:
    """Everything that is known of a search before it begins: plain, and built once.

    It pickles, and is what is shipped to the process of a search.

    Attributes:
        space: The decisions.
        budgets: The budgets, parsed.
        costs: Every cost that has a name in this run, by name.
        reward: Judges an evaluation.
        dense: The evaluation of the dense network.
        features: What agents that decide in order see of each decision, float32 [D, F] in [0, 1].
        figures: What the criterion says of each decision beside its order, by the decision's name;
            see `prunetune.models.criteria.Ranking`.
        shield: Whether agents clip values so that the tabulated budgets stay reachable.
    """

    space: SearchSpace
    budgets: tuple[Budget, ...]
    costs: Mapping[str, Cost]
    reward: Reward
    dense: Evaluation
    features: NDArray[np.float32] = field(repr=False)
    figures: Mapping[str, Mapping[str, NDArray[np.float64]]] = field(
        default_factory=dict, repr=False
    )
    shield: bool = False

    @cached_property
    def budgeted(self) -> tuple[Cost, ...]:
        """The cost of every budget, in the order of the budgets."""
        return tuple(pick("cost", budget.cost, self.costs) for budget in self.budgets)

    @cached_property
    def limits(self) -> NDArray[np.float64]:
        """Sets of limits that candidates keep in turn, float64 [K, B]; K is 1 without ranges."""
        return front_limits(self.budgets)

    @cached_property
    def tabulated(self) -> TabulatedBudgets:
        """The budgets that can be looked up."""
        return TabulatedBudgets(self.budgets, self.budgeted)

    @cached_property
    def action_map(self) -> ActionMap:
        """Map between actions and values; action 0 is the uniform candidate."""
        start = uniform_fraction(self.space, self.budgets, self.budgeted)
        return ActionMap(self.space, start)

    def judge(
        self,
        candidates: NDArray[np.int64],
        evaluations: Sequence[Evaluation],
        limits: NDArray[np.float64] | None = None,
        best: float = -math.inf,
    ) -> Outcome:
        """Judge evaluated candidates.

        Args:
            candidates: int64 of shape [N, D].
            evaluations: Theirs, in the same order.
            limits: What each has to keep, float64 [N, B]; the budgets' own, which are the upper
                ends of ranges, when left out.
            best: The highest reward of a feasible candidate that the search has asked for before.

        Raises:
            EvaluationError: If there is another number of evaluations than of candidates, a
                measured cost that has a budget is missing, or the reward cannot use an evaluation.
        """
        if len(evaluations) != len(candidates):
            raise EvaluationError(
                f"The evaluator returned {len(evaluations)} evaluations for {len(candidates)} "
                "candidates; it must return one each, in order."
            )
        rewards = np.array([self._reward(evaluation) for evaluation in evaluations])
        succeeded = np.isfinite(rewards)
        rewards[~succeeded] = rewards[succeeded].min() if succeeded.any() else 0.0
        if limits is None:
            limits = np.repeat(self.limits[-1:], len(candidates), axis=0)
        costs = np.stack([_paid(c, candidates, evaluations) for c in self.budgeted], axis=1)
        costs = np.where(np.isnan(costs), np.maximum(1.0, limits), costs)
        feasible = (costs <= limits).all(axis=1) & succeeded
        signals = self.reward.signals(rewards, feasible, best)
        return Outcome(rewards, signals, costs, feasible, succeeded, tuple(evaluations))

    def _reward(self, evaluation: Evaluation) -> float:
        if evaluation.error is not None:
            return math.nan
        read = [evaluation.measures.get(name, 0.0) for name in self.reward.measures]
        if not np.isfinite(read).all():
            return math.nan
        return score(self.reward, evaluation, self.dense)


def _paid(
    cost: Cost, candidates: NDArray[np.int64], evaluations: Sequence[Evaluation]
) -> NDArray[np.float64]:
    """One cost of candidates, looked up or as their evaluations report it, float64 [N]."""
    if cost.tabulated:
        return cost.fraction(candidates)
    measured = []
    for evaluation in evaluations:
        failed = evaluation.error is not None
        if not failed and cost.name not in evaluation.costs:
            raise EvaluationError(
                f"The cost {cost.name!r} has a budget but its evaluations do not report it."
            )
        measured.append(math.nan if failed else evaluation.costs[cost.name])
    return np.array(measured, dtype=np.float64)
