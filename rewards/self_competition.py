"""A reward for agents that compete with themselves."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .._nearest import pick
from .evaluation.evaluation import Evaluation
from .reward import Reward
from .single import SINGLE_REWARDS

__all__ = ["SelfCompetition"]


class SelfCompetition(Reward):
    """Be better than one's own best, within the budgets.

    A learning agent is told +1 for a candidate that keeps every budget and beats the best one that
    its search has found before, and -1 for any other: the self-competition of Balemans et al. 2025
    (arXiv 2509.10526), in our reading. Until there is a best one, candidates compete with the
    median of those beside them (our choice). Candidates are still ranked, and the finalists
    chosen, by the value of the reward that they compete in.

    Args:
        of: The reward that candidates compete in, one of those on a single measure.

    Raises:
        UnknownNameError: If there is no such reward.
    """

    name = "self-competition"

    def __init__(self, of: str = "accuracy") -> None:
        self._of = pick("reward of self-competition", of, SINGLE_REWARDS)()
        self.measures = self._of.measures
        self.costs = self._of.costs

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        """The value that candidates compete in."""
        return self._of(evaluation, dense)

    def signals(
        self, values: NDArray[np.float64], feasible: NDArray[np.bool_], best: float
    ) -> NDArray[np.float64]:
        """+1 for feasible candidates above ``best``, -1 for all others; see `Reward.signals`."""
        if math.isinf(best) and feasible.any():
            best = float(np.median(values[feasible]))
        return np.where(feasible & (values > best), 1.0, -1.0)
