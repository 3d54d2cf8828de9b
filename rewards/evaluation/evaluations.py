"""Where evaluations come from: a pool of processes, or this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from ...models.space import Candidate
from .evaluation import Evaluation

__all__ = [
    "Evaluations",
    "Evaluator",
    "InProcessEvaluations",
    "evaluate_safely",
    "failed_evaluation",
    "sentence",
]


class Evaluations(Protocol):
    """Evaluates candidates, wherever that happens."""

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        """Evaluate candidates.

        Args:
            candidates: All that can be evaluated at the same time; one may occur twice.

        Returns:
            One evaluation for each, in the same order. One that failed says so in its ``error``.
        """


class Evaluator(Protocol):
    """Evaluates one candidate after the other; `CandidateEvaluator` is one."""

    @property
    def dense(self) -> Evaluation:
        """The evaluation of the dense network."""

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """All measures and costs of one candidate; it may raise any exception."""


class InProcessEvaluations:
    """Evaluates in this process, for notebooks and tests.

    It remembers what it has evaluated, so that nothing is evaluated twice.

    Args:
        evaluator: Evaluates one candidate.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._known: dict[Candidate, Evaluation] = {}

    @property
    def dense(self) -> Evaluation:
        """The evaluation of the dense network."""
        return self._evaluator.dense

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        """See :meth:`Evaluations.evaluate`."""
        return [self._one(tuple(int(value) for value in each)) for each in candidates]

    def _one(self, candidate: Candidate) -> Evaluation:
        if candidate not in self._known:
            self._known[candidate] = evaluate_safely(self._evaluator, candidate)
        return self._known[candidate]


def evaluate_safely(evaluator: Evaluator, candidate: Candidate) -> Evaluation:
    """Evaluate a candidate; whatever the evaluator raises becomes the evaluation's ``error``."""
    start = time.perf_counter()
    try:
        return evaluator.evaluate(candidate)
    except Exception as error:
        return failed_evaluation(candidate, sentence(error), time.perf_counter() - start)


def failed_evaluation(candidate: Candidate, error: str, seconds: float = 0.0) -> Evaluation:
    """The evaluation of a candidate that could not be evaluated."""
    return Evaluation(candidate=candidate, measures={}, costs={}, seconds=seconds, error=error)


def sentence(error: BaseException) -> str:
    """One line that names the error and keeps the first line of its message."""
    message = str(error).strip()
    return f"{type(error).__name__}: {message.splitlines()[0]}" if message else type(error).__name__
