"""Measures of a candidate network, and the rewards made of them."""

from __future__ import annotations

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
