"""Measures and rewards by name, with parameters, as users write them."""

from __future__ import annotations

from collections.abc import Sequence

from .._registry import NamedSpec, Registry
from ..errors import SpecError
from .composite import AMCErrorLogFLOPs, WeightedSum
from .measures.accuracy import Accuracy, Loss
from .measures.agreement import Agreement
from .measures.feature_distance import FeatureDistance
from .measures.measure import Measure
from .measures.neuron_entropy import NeuronEntropy
from .measures.spatial_entropy import SpatialEntropy, SpatialEntropy256
from .reward import Reward
from .self_competition import SelfCompetition
from .single import SINGLE_REWARDS

__all__ = [
    "DEFAULT_MEASURES",
    "MEASURES",
    "REWARDS",
    "make_measures",
    "make_reward",
]

MEASURES: Registry[Measure] = Registry(
    "measure",
    {
        measure.name: measure
        for measure in (
            Accuracy,
            Loss,
            Agreement,
            SpatialEntropy,
            SpatialEntropy256,
            NeuronEntropy,
            FeatureDistance,
        )
    },
    Measure,
    "prunetune.rewards.Measure",
    early=True,
)

REWARDS: Registry[Reward] = Registry(
    "reward",
    {
        **SINGLE_REWARDS,
        **{each.name: each for each in (WeightedSum, AMCErrorLogFLOPs, SelfCompetition)},
    },
    Reward,
    "prunetune.rewards.Reward",
    early=True,
)

DEFAULT_MEASURES: tuple[NamedSpec, ...] = tuple(NamedSpec(name=name) for name in MEASURES)


def make_reward(spec: NamedSpec | str) -> Reward:
    """Build the reward that a spec names.

    Args:
        spec: A spec or a plain name.

    Raises:
        UnknownNameError: If none of ours has that name.
        PluginError: If the user's own reward cannot be imported or is not a ``Reward``.
        SpecError: If a parameter is unknown, missing or out of range.
    """
    return REWARDS.make(spec)


def make_measures(specs: Sequence[NamedSpec | str] = DEFAULT_MEASURES) -> tuple[Measure, ...]:
    """Build measures, in order.

    Args:
        specs: Specs or plain names; all of ours when left out.

    Raises:
        UnknownNameError: If none of ours has a name.
        PluginError: If a measure of the user's own cannot be imported or is not a ``Measure``.
        SpecError: If a parameter is wrong, or two measures have the same column.
    """
    measures = []
    owners: dict[str, str] = {}
    for spec in specs:
        measure = MEASURES.make(spec)
        for column in measure.columns:
            if column in owners:
                raise SpecError(
                    f"The measures {owners[column]!r} and {measure.name!r} both write the column "
                    f"{column!r}; leave one out or give it another column."
                )
            owners[column] = measure.name
        measures.append(measure)
    return tuple(measures)
