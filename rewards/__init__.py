"""Measures of a candidate network, evaluations, and the rewards made of them.

What needs torch is imported when it is asked for: processes that only handle evaluations, such as
the evaluator pool's coordinator, are then several hundred MB smaller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from .._registry import NamedSpec
    from .evaluation.evaluation import Evaluation
    from .evaluation.evaluations import Evaluations, InProcessEvaluations
    from .evaluation.evaluator import CandidateEvaluator, build_evaluator
    from .evaluation.evaluator_spec import EvaluatorSpec
    from .measures.measure import Batch, Measure
    from .registry import (
        DEFAULT_MEASURES,
        MEASURES,
        REWARDS,
        make_measures,
        make_reward,
    )
    from .reward import Reward, score

__all__ = [
    "DEFAULT_MEASURES",
    "MEASURES",
    "REWARDS",
    "Batch",
    "CandidateEvaluator",
    "Evaluation",
    "Evaluations",
    "EvaluatorSpec",
    "InProcessEvaluations",
    "Measure",
    "NamedSpec",
    "Reward",
    "build_evaluator",
    "make_measures",
    "make_reward",
    "score",
]

_MODULES = {
    ".._registry": ("NamedSpec",),
    ".evaluation.evaluation": ("Evaluation",),
    ".evaluation.evaluations": ("Evaluations", "InProcessEvaluations"),
    ".evaluation.evaluator": ("CandidateEvaluator", "build_evaluator"),
    ".evaluation.evaluator_spec": ("EvaluatorSpec",),
    ".measures.measure": ("Batch", "Measure"),
    ".registry": (
        "DEFAULT_MEASURES",
        "MEASURES",
        "REWARDS",
        "make_measures",
        "make_reward",
    ),
    ".reward": ("Reward", "score"),
}
__getattr__ = lazily(
    __name__, {name: module for module, names in _MODULES.items() for name in names}
)
