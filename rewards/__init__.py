"""Measures of a candidate network, and the rewards made of them.

What needs torch is imported when it is asked for: processes that only handle evaluations, such as
the evaluator pool's coordinator, are then several hundred MB smaller.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluation import Evaluation
    from .evaluator import CandidateEvaluator, EvaluatorSpec, build_evaluator
    from .measure import Batch, Measure
    from .registry import (
        DEFAULT_MEASURES,
        MEASURES,
        REWARDS,
        MeasureSpec,
        RewardSpec,
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
    "EvaluatorSpec",
    "Measure",
    "MeasureSpec",
    "Reward",
    "RewardSpec",
    "build_evaluator",
    "make_measures",
    "make_reward",
    "score",
]

_MODULES = ("evaluation", "reward", "measure", "registry", "evaluator")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            members = vars(importlib.import_module(f".{module}", __name__))
            if name in members.get("__all__", ()):
                return members[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
