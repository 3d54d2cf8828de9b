"""The evaluator process holds one task and evaluates one candidate after the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import EvaluationError, PruneTuneError
from ..models.space import Candidate
from ..rewards.evaluation.evaluation import Evaluation
from ..rewards.evaluation.evaluations import (
    Evaluator,
    evaluate_safely,
    failed_evaluation,
    sentence,
)
from .lifeline import Lifeline

# How the error of an evaluation begins that failed without having been heard of.
_LOST = "EvaluatorDied: "


EvaluatorFactory = Callable[[], Evaluator]


@dataclass(frozen=True)
class Built:
    """How building an evaluator ended: with the dense evaluation, or with an error."""

    dense: Evaluation | None
    error: PruneTuneError | None


def lost_evaluation(candidate: Candidate, deaths: int, reason: str) -> Evaluation:
    """The evaluation of a candidate all of whose evaluator processes died.

    Args:
        candidate: The candidate.
        deaths: How many died while evaluating it.
        reason: Of the last death.
    """
    message = f"{deaths} evaluator processes died evaluating it; last: {reason}"
    return failed_evaluation(candidate, _LOST + message)


def is_lost(error: str | None) -> bool:
    """Whether an evaluation's error says that its evaluator processes died.

    It may have been the candidate (out of memory, say) or the machine; nobody can tell, so a later
    process of the run may try such a candidate again. What an evaluation itself raised is final.
    """
    return error is not None and error.startswith(_LOST)


class EvaluatorWorker:
    """A Ray actor's class; the environment of its process limits the threads of an evaluation.

    Args:
        lifeline: Of the driver: nothing is evaluated for one that has died.
    """

    def __init__(self, lifeline: Lifeline) -> None:
        lifeline.depend()
        self._lifeline = lifeline
        self._evaluator: Evaluator | None = None

    def ping(self) -> int:
        """Return the process id, as soon as the process has its resources and is idle."""
        return os.getpid()

    def build(self, factory: EvaluatorFactory) -> Built:
        """Build the evaluator. It never raises: the caller has to tell a bad task from a death."""
        try:
            self._evaluator = factory()
            return Built(self._evaluator.dense, None)
        except PruneTuneError as error:
            return Built(None, error)
        except Exception as error:
            return Built(None, EvaluationError(f"The evaluator cannot be built: {sentence(error)}"))

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Evaluate one candidate. Whatever it raises is recorded and not raised."""
        assert self._evaluator is not None
        # What waited here while the driver died is evaluated by the run that resumes it.
        self._lifeline.end_if_cut()
        return evaluate_safely(self._evaluator, candidate)
