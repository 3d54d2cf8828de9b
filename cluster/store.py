"""What the pool expects of the place that keeps evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..rewards.evaluation.evaluation import Evaluation


class EvaluationStore(Protocol):
    """Keeps every evaluation for ever.

    The pool's coordinator gets the store by pickle, so unpickling must open it again. ``get`` may
    be called while ``append`` runs in another thread; ``append`` is never called twice at once.
    """

    def get(self, candidate: tuple[int, ...]) -> Evaluation | None:
        """Return the evaluation of a candidate from memory, or ``None`` if there is none yet."""

    def append(self, evaluations: Sequence[Evaluation]) -> None:
        """Keep evaluations. They survive a power cut when this returns."""
