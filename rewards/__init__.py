"""Measures of a candidate network, and the rewards made of them."""

from __future__ import annotations

from .evaluation import Evaluation
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
    "Evaluation",
    "Measure",
    "MeasureSpec",
    "Reward",
    "RewardSpec",
    "make_measures",
    "make_reward",
    "score",
]
