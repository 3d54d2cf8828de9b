"""Where an agent asks: candidates are evaluated, judged once, and remembered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..models.space import Candidate
from ..rewards.evaluation.evaluations import Evaluations
from .past import Past
from .problem import Outcome, Problem

__all__ = ["Judge"]


class Judge:
    """Has the candidates of one search evaluated, judges each where it was asked for, once.

    Attributes:
        problem: What is searched.
        past: What the search has asked for so far.
        last: The candidates that were judged last, int64 [N, D], and what became of them.

    Args:
        problem: What is searched.
        evaluations: Evaluates candidates.
    """

    def __init__(self, problem: Problem, evaluations: Evaluations) -> None:
        self.problem = problem
        self.past = Past()
        self.last: tuple[NDArray[np.int64], Outcome] | None = None
        self._evaluations = evaluations

    def ask(
        self, candidates: NDArray[np.int64], limits: NDArray[np.float64] | None = None
    ) -> Outcome:
        """Evaluate candidates in one call, judge them and add them to the past.

        Args:
            candidates: int64 of shape [N, D].
            limits: What each has to keep, float64 [N, B]; the budgets' own when left out.

        Raises:
            PruneTuneError: If nothing can be evaluated, or `Problem.judge` refuses an evaluation.
        """
        problem = self.problem
        asked: list[Candidate] = [tuple(row) for row in candidates.tolist()]
        evaluations = self._evaluations.evaluate(asked)
        outcome = problem.judge(candidates, evaluations, limits, self.past.best)
        names = [budget.cost for budget in problem.budgets]
        self.past.append(
            asked,
            np.where(outcome.succeeded, outcome.rewards, np.nan).tolist(),
            [
                {**dict(zip(names, row, strict=True)), **evaluation.costs}
                for row, evaluation in zip(outcome.costs.tolist(), evaluations, strict=True)
            ],
            outcome.feasible.tolist(),
        )
        self.last = candidates, outcome
        return outcome
