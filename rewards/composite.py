"""Rewards that combine other rewards or costs."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping

from .._nearest import pick
from ..errors import SpecError
from .evaluation.evaluation import Evaluation
from .reward import Reward
from .single import SINGLE_REWARDS

__all__ = ["AMCErrorLogFLOPs", "WeightedSum"]


class WeightedSum(Reward):
    """A weighted sum of other rewards, each with its default parameters.

    Args:
        terms: Weight of each reward by name; each reward is better when higher, so weights are
            usually positive.

    Raises:
        SpecError: If there is no term or a weight is not a finite number.
        UnknownNameError: If a term is not one of the rewards on a single measure.
    """

    name = "weighted-sum"

    def __init__(self, terms: Mapping[str, float]) -> None:
        if not isinstance(terms, Mapping) or not terms:
            raise SpecError(
                "The reward 'weighted-sum' needs terms, such as "
                "terms: {accuracy: 1.0, spatial-entropy: 0.5}."
            )
        for name, weight in terms.items():
            if not _is_finite(weight):
                raise SpecError(
                    f"The reward 'weighted-sum' needs a finite number as the weight of {name!r}, "
                    f"not {weight!r}."
                )
        self._terms = tuple(
            (pick("term of weighted-sum", name, SINGLE_REWARDS)(), float(weight))
            for name, weight in terms.items()
        )
        self.measures = tuple(
            dict.fromkeys(column for reward, _ in self._terms for column in reward.measures)
        )

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        """Sum of weight times reward."""
        return math.fsum(weight * reward(evaluation, dense) for reward, weight in self._terms)


class AMCErrorLogFLOPs(Reward):
    """Minus error times the logarithm of FLOPs, AMC's reward for few FLOPs at full accuracy.

    ``-(1 - accuracy) * log(FLOPs)`` (He et al. 2018, eq. 6), with absolute FLOPs: of a fraction the
    logarithm would be negative, and the reward would favour errors.

    Args:
        dense_flops: FLOPs of the dense network for one image, more than 1.

    Raises:
        SpecError: If ``dense_flops`` is not such a number.
    """

    name = "amc-error-log-flops"
    measures = ("accuracy",)
    costs = ("flops",)

    def __init__(self, dense_flops: float) -> None:
        if not _is_finite(dense_flops) or dense_flops <= 1:
            raise SpecError(
                "The reward 'amc-error-log-flops' needs dense_flops, the dense network's FLOPs for "
                f"one image, as a number above 1, not {dense_flops!r}."
            )
        self.dense_flops = float(dense_flops)

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        """At most 0; 0 when no image is wrong."""
        # A candidate has at least one operation, so the logarithm is never negative.
        flops = max(1.0, evaluation.costs["flops"] * self.dense_flops)
        return -(1.0 - evaluation.measures["accuracy"]) * math.log(flops)


def _is_finite(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, numbers.Real) and math.isfinite(value)
