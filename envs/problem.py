"""What an environment is made of, and how a complete candidate is judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .._registry import pick
from ..errors import EvaluationError
from ..models.costs.cost import Cost
from ..models.costs.tables import Structure
from ..models.space import Candidate
from ..rewards.evaluation.evaluation import Evaluation
from ..rewards.reward import Reward, score
from .actions import Limits, WidthMap, uniform_fraction
from .budgets import Budget, all_costs, front_limits
from .past import Past

__all__ = ["Outcome", "PruningProblem"]


@dataclass(frozen=True)
class Outcome:
    """What became of N complete candidates.

    Attributes:
        rewards: Finite, float64 [N]. A candidate whose evaluation failed, or one of whose measures
            that the reward reads is not finite, gets the lowest of the batch, 0 if all failed
            (our choice).
        signals: What a learning agent is told of them, float64 [N]; see `Reward.signals`.
        costs: Fractions of dense per budget, float64 [N, B]. A measured cost of a candidate whose
            evaluation failed is 1, or the limit where that is more (our choice).
        feasible: Whether all budgets are kept and the evaluation succeeded, bool [N].
        evaluations: The evaluations themselves.
    """

    rewards: NDArray[np.float64]
    signals: NDArray[np.float64]
    costs: NDArray[np.float64]
    feasible: NDArray[np.bool_]
    evaluations: tuple[Evaluation, ...]


@dataclass(frozen=True)
class PruningProblem:
    """Everything an environment needs to know about a search.

    Attributes:
        structure: Tables of the network.
        budgets: Budgets, whose order is that of ``info["costs"]``.
        evaluate: Evaluates complete candidates, all that it is given at once, in their order.
        reward: Judges an evaluation.
        dense: Evaluation of the dense network.
        costs: Costs beside the tables' ``flops`` and ``params``.
        sensitivity: Features that tell how sensitive the groups are, [G, F], or None.
        shield: Whether widths are clipped so that the tabulated budgets stay reachable.
        smallest: Fraction of its units that every group keeps at least, in [0, 1].
        best: The highest reward of a feasible candidate that the search asked for in earlier
            iterations; minus infinity before there is one.
        past: What the search asked for in earlier iterations.
    """

    structure: Structure
    budgets: tuple[Budget, ...]
    evaluate: Callable[[Sequence[Candidate]], Sequence[Evaluation]]
    reward: Reward
    dense: Evaluation
    costs: tuple[Cost, ...] = ()
    sensitivity: NDArray[np.float64] | None = None
    shield: bool = False
    smallest: float = 0.0
    best: Callable[[], float] = lambda: -math.inf
    past: Callable[[], Past] = Past

    @cached_property
    def limited(self) -> tuple[Cost, ...]:
        """The cost of every budget, in the order of the budgets."""
        known = all_costs(self.structure, self.costs)
        return tuple(pick("cost", budget.cost, known) for budget in self.budgets)

    @cached_property
    def front(self) -> NDArray[np.float64]:
        """The limits that candidates keep in turn, float64 [K, B]; K is 1 without ranges."""
        return front_limits(self.budgets)

    @cached_property
    def limits(self) -> Limits:
        """The tabulated budgets."""
        return Limits(self.budgets, self.limited)

    @cached_property
    def width_map(self) -> WidthMap:
        """Map between actions and widths; action 0 is the uniform candidate."""
        start = uniform_fraction(self.structure, self.budgets, self.limited, self.smallest)
        return WidthMap(self.structure, start, self.smallest)

    def judge(
        self, widths: NDArray[np.int64], limits: NDArray[np.float64] | None = None
    ) -> Outcome:
        """Evaluate complete candidates in one call and judge them.

        Args:
            widths: Units kept, int64 of shape [N, G].
            limits: What each has to keep, float64 [N, B]; the budgets' own, which are the upper
                ends of ranges, when left out.

        Raises:
            EvaluationError: If the evaluator answers with another number of evaluations than
                asked for or leaves out a measured cost that has a budget, or the reward cannot
                use an evaluation.
        """
        candidates: list[Candidate] = [tuple(int(width) for width in row) for row in widths]
        evaluations = tuple(self.evaluate(candidates))
        if len(evaluations) != len(candidates):
            raise EvaluationError(
                f"The evaluator returned {len(evaluations)} evaluations for {len(candidates)} "
                "candidates; it must return one each, in order."
            )
        rewards = np.array([self._reward(evaluation) for evaluation in evaluations])
        succeeded = np.isfinite(rewards)
        rewards[~succeeded] = rewards[succeeded].min() if succeeded.any() else 0.0
        if limits is None:
            limits = np.repeat(self.front[-1:], len(candidates), axis=0)
        costs = np.stack([self._fractions(c, widths, evaluations) for c in self.limited], axis=1)
        costs = np.where(np.isnan(costs), np.maximum(1.0, limits), costs)
        feasible = (costs <= limits).all(axis=1) & succeeded
        signals = self.reward.signals(rewards, feasible, self.best())
        return Outcome(rewards, signals, costs, feasible, evaluations)

    def _reward(self, evaluation: Evaluation) -> float:
        if evaluation.error is not None:
            return np.nan
        read = [evaluation.measures.get(name, 0.0) for name in self.reward.measures]
        if not np.isfinite(read).all():
            return np.nan
        return score(self.reward, evaluation, self.dense)

    @staticmethod
    def _fractions(
        cost: Cost, widths: NDArray[np.int64], evaluations: Sequence[Evaluation]
    ) -> NDArray[np.float64]:
        if cost.tabulated:
            return cost.fraction(widths)
        measured = []
        for evaluation in evaluations:
            if evaluation.error is None and cost.name not in evaluation.costs:
                raise EvaluationError(
                    f"The cost {cost.name!r} has a budget but its evaluations do not report it."
                )
            failed = evaluation.error is not None
            measured.append(np.nan if failed else evaluation.costs[cost.name])
        return np.array(measured, dtype=np.float64)
