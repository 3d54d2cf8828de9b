"""What a reward is, and how a reward is asked for its value."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from .._nearest import nearest
from ..errors import EvaluationError
from .evaluation.evaluation import Evaluation

__all__ = ["Reward", "score"]


class Reward(ABC):
    """A pure function of a candidate's evaluation and the dense network's.

    A reward keeps no state: equal evaluations get equal values, in any process and any order.

    Attributes:
        name: Kebab-case name, unique among rewards.
        measures: Columns that it reads from ``Evaluation.measures``.
        costs: Costs that it reads from ``Evaluation.costs``.
    """

    name: str
    measures: tuple[str, ...]
    costs: tuple[str, ...] = ()

    @abstractmethod
    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        """The candidate's value; higher is better.

        Args:
            evaluation: The candidate's evaluation.
            dense: The dense network's evaluation, with the same columns.
        """

    def signals(
        self, values: NDArray[np.float64], feasible: NDArray[np.bool_], best: float
    ) -> NDArray[np.float64]:
        """What a learning agent is told of candidates that were judged together: their values.

        A reward that depends on how the search has gone so far says so here, and stays a pure
        function all the same. Candidates are always ranked by their values.

        Args:
            values: Of N candidates, finite.
            feasible: Whether each keeps every budget, bool [N].
            best: The highest value of a feasible candidate that the search had asked for before;
                minus infinity where there is none.

        Returns:
            Finite, float64 [N].
        """
        return values


def score(reward: Reward, evaluation: Evaluation, dense: Evaluation) -> float:
    """Ask a reward for its value and make sure that it is one.

    Args:
        reward: Ours or the user's own.
        evaluation: The candidate's evaluation; its ``error`` must be ``None``.
        dense: The dense network's evaluation.

    Returns:
        A finite float.

    Raises:
        EvaluationError: If the candidate could not be evaluated, the reward needs a measure or
            cost that was not recorded, raises, or returns something other than a finite number.
    """
    if evaluation.error is not None:
        raise EvaluationError(
            f"The candidate {evaluation.candidate} has no reward because its evaluation "
            f"failed: {evaluation.error}"
        )
    for one in (evaluation, dense):
        _require(reward, "measure", reward.measures, one.measures.keys())
        _require(reward, "cost", reward.costs, one.costs.keys())
    try:
        # A user's reward may return anything, whatever its annotation says.
        value: object = reward(evaluation, dense)
    except Exception as error:
        raise EvaluationError(
            f"The reward {reward.name!r} raised {type(error).__name__}: {error}; correct its "
            "__call__ (prunetune.testing.check_reward helps)."
        ) from error
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise EvaluationError(
            f"The reward {reward.name!r} must return a number, but returned {value!r}."
        )
    if not math.isfinite(value):
        raise EvaluationError(
            f"The reward {reward.name!r} must return a finite number, but returned {value} for the "
            f"candidate {evaluation.candidate}."
        )
    return float(value)


def _require(reward: Reward, kind: str, needed: tuple[str, ...], names: Collection[str]) -> None:
    for name in needed:
        if name not in names:
            raise EvaluationError(
                f"The reward {reward.name!r} needs the {kind} {name!r}, which was not recorded; "
                f"{nearest(name, names) if names else f'no {kind} was recorded.'}"
            )
