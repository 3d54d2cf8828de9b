"""Measures and rewards by name, with parameters, as users write them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .._registry import is_reference, nearest, pick, resolve
from ..errors import PluginError, PruneTuneError, SpecError
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
    "MeasureSpec",
    "RewardSpec",
    "make_measures",
    "make_reward",
]

MEASURES: Mapping[str, type[Measure]] = MappingProxyType(
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
    }
)

REWARDS: Mapping[str, type[Reward]] = MappingProxyType(
    {
        **SINGLE_REWARDS,
        **{each.name: each for each in (WeightedSum, AMCErrorLogFLOPs, SelfCompetition)},
    }
)


class _NamedSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class RewardSpec(_NamedSpec):
    """A reward as written in a spec; a plain string is its name.

    Attributes:
        name: One of ``REWARDS``, or the user's own ``module:Class`` or ``path/to/file.py:Class``.
        parameters: Keyword arguments of its constructor.
    """


class MeasureSpec(_NamedSpec):
    """A measure as written in a spec; a plain string is its name.

    Attributes:
        name: One of ``MEASURES``, or the user's own ``module:Class`` or ``path/to/file.py:Class``.
        parameters: Keyword arguments of its constructor.
    """


DEFAULT_MEASURES: tuple[MeasureSpec, ...] = tuple(MeasureSpec(name=name) for name in MEASURES)

_T = TypeVar("_T", Measure, Reward)


def make_reward(spec: RewardSpec | str) -> Reward:
    """Build the reward that a spec names.

    Args:
        spec: A spec or a plain name.

    Raises:
        UnknownNameError: If none of ours has that name.
        PluginError: If the user's own reward cannot be imported or is not a ``Reward``.
        SpecError: If a parameter is unknown, missing or out of range.
    """
    spec = RewardSpec(name=spec) if isinstance(spec, str) else spec
    return _make("reward", spec, REWARDS, Reward)  # type: ignore[type-abstract]


def make_measures(specs: Sequence[MeasureSpec | str] = DEFAULT_MEASURES) -> tuple[Measure, ...]:
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
    for each in specs:
        spec = MeasureSpec(name=each) if isinstance(each, str) else each
        measure = _make("measure", spec, MEASURES, Measure)  # type: ignore[type-abstract]
        for column in measure.columns:
            if column in owners:
                raise SpecError(
                    f"The measures {owners[column]!r} and {measure.name!r} both write the column "
                    f"{column!r}; leave one out or give it another column."
                )
            owners[column] = measure.name
        measures.append(measure)
    return tuple(measures)


def _make(kind: str, spec: _NamedSpec, known: Mapping[str, type[_T]], base: type[_T]) -> _T:
    own = is_reference(spec.name)
    target = resolve(spec.name, kind) if own else pick(kind, spec.name, known)
    if isinstance(target, base):
        if spec.parameters:
            raise SpecError(
                f"The {kind} {spec.name!r} is an object already and takes no parameters; name its "
                "class to give some."
            )
        return target
    if not isinstance(target, type) or not issubclass(target, base):
        raise PluginError(
            f"The {kind} {spec.name!r} must be a subclass of prunetune.rewards.{base.__name__}."
        )
    _check_parameters(kind, spec, target)
    try:
        return target(**spec.parameters)
    except PruneTuneError:
        raise
    except Exception as error:
        raise (PluginError if own else SpecError)(
            f"The {kind} {spec.name!r} cannot be built with parameters {spec.parameters}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_parameters(kind: str, spec: _NamedSpec, target: type[Any]) -> None:
    signature = inspect.signature(target)
    parameters = signature.parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for given in spec.parameters:
        if given not in names and not takes_any:
            hint = nearest(given, names) if names else "it takes none."
            raise SpecError(f"The {kind} {spec.name!r} has no parameter {given!r}; {hint}")
    missing = [
        name
        for name in names
        if signature.parameters[name].default is inspect.Parameter.empty
        and name not in spec.parameters
    ]
    if missing:
        raise SpecError(
            f"The {kind} {spec.name!r} needs the parameter {missing[0]!r}; write "
            f"{{name: {spec.name}, parameters: {{{missing[0]}: ...}}}}."
        )
