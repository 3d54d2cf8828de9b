"""Rewards that look at one measure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

from ..errors import SpecError
from .evaluation.evaluation import Evaluation
from .reward import Reward

__all__ = [
    "SINGLE_REWARDS",
    "AccuracyReward",
    "AgreementReward",
    "EntropyReward",
    "FeatureDistanceReward",
    "LossReward",
    "NeuronEntropyReward",
    "SpatialEntropy256Reward",
    "SpatialEntropyReward",
]

Goal = Literal["minimise", "preserve", "maximise"]


class AccuracyReward(Reward):
    """Validation accuracy, a fraction in [0, 1] (the reward of the AMC line of work)."""

    name = "accuracy"
    measures = ("accuracy",)

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        """The candidate's accuracy."""
        return evaluation.measures["accuracy"]


class _Negative(Reward):
    """Minus one measure."""

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        """Minus the candidate's value."""
        return -evaluation.measures[self.measures[0]]


class LossReward(_Negative):
    """Minus the cross-entropy, nats, at most 0."""

    name = "loss"
    measures = ("loss",)


class AgreementReward(_Negative):
    """Minus the divergence from the dense network's predictions, nats, at most 0; no labels."""

    name = "agreement"
    measures = ("agreement",)


class FeatureDistanceReward(_Negative):
    """Minus the distance from the dense network's features, in [-1, 0]; no labels."""

    name = "feature-distance"
    measures = ("feature-distance",)


class EntropyReward(Reward):
    """A reward on an entropy.

    Args:
        goal: ``minimise``: minus the entropy. ``maximise``: the entropy. ``preserve``: minus the
            absolute difference from the dense network's.
        column: The measure's column, for a measure whose ``column`` was changed.

    Raises:
        SpecError: If there is no such goal.
    """

    default_column: ClassVar[str]

    def __init__(self, goal: Goal = "minimise", column: str | None = None) -> None:
        if goal not in ("minimise", "preserve", "maximise"):
            raise SpecError(
                f"The reward {self.name!r} takes goal 'minimise', 'preserve' or 'maximise', "
                f"not {goal!r}."
            )
        self.goal = goal
        self.measures = (column or self.default_column,)

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        """The entropy, turned so that higher is nearer to the goal."""
        entropy = evaluation.measures[self.measures[0]]
        if self.goal == "preserve":
            return -abs(entropy - dense.measures[self.measures[0]])
        return entropy if self.goal == "maximise" else -entropy


class SpatialEntropyReward(EntropyReward):
    """Spatial entropy of the activations, by default minimised (Musat & Andonie 2023)."""

    name = "spatial-entropy"
    default_column = "spatial-entropy"


class SpatialEntropy256Reward(EntropyReward):
    """Spatial entropy at 256 grey levels, not normalised, by default minimised."""

    name = "spatial-entropy-256"
    default_column = "spatial-entropy-256"


class NeuronEntropyReward(EntropyReward):
    """Entropy of the neurons' ON/OFF states, by default minimised.

    NEPENTHE (arXiv 2404.16890) prunes where it is low; using it as a reward is our choice.
    """

    name = "neuron-entropy"
    default_column = "neuron-entropy"


SINGLE_REWARDS: Mapping[str, type[Reward]] = MappingProxyType(
    {
        reward.name: reward
        for reward in (
            AccuracyReward,
            LossReward,
            AgreementReward,
            SpatialEntropyReward,
            SpatialEntropy256Reward,
            NeuronEntropyReward,
            FeatureDistanceReward,
        )
    }
)
