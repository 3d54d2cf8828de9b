"""Criteria rank the channels inside a group."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainSerializer

from ..._registry import NamedSpec, Registry
from .criterion import Criterion, Evidence, Ranking, ScoreCriterion
from .kfac import Kfac
from .magnitude import L1, L2, BNScale, GeometricMedian, Random
from .provable import ProvableFilterPruning
from .residual import ActivationResidual
from .taylor import Taylor

__all__ = [
    "CRITERIA",
    "DEFAULT_CRITERION",
    "Criterion",
    "CriterionSpec",
    "Evidence",
    "Ranking",
    "ScoreCriterion",
    "make_criterion",
    "written_criterion",
]

CRITERIA: Registry[Criterion] = Registry(
    "criterion",
    {
        criterion.name: criterion
        for criterion in (
            ActivationResidual,
            L1,
            L2,
            BNScale,
            GeometricMedian,
            Taylor,
            ProvableFilterPruning,
            Kfac,
            Random,
        )
    },
    Criterion,
    "prunetune.models.Criterion",
    early=True,
)


def written_criterion(spec: NamedSpec) -> str | dict[str, Any]:
    """A criterion as specs and keys write it: without parameters as its name alone.

    That is how it was written before criteria took parameters: evaluations and statistics that were
    stored then are found by it.
    """
    return spec.model_dump(mode="json") if spec.parameters else spec.name


CriterionSpec = Annotated[NamedSpec, PlainSerializer(written_criterion)]
"""A criterion in a spec."""

DEFAULT_CRITERION = NamedSpec(name=ActivationResidual.name)


def make_criterion(spec: NamedSpec | str) -> Criterion:
    """Build the criterion that a spec names.

    Args:
        spec: The name, with or without parameters.

    Raises:
        UnknownNameError: If none of ours has that name.
        PluginError: If the user's own cannot be imported or is not a ``Criterion``.
        SpecError: If a parameter is unknown, missing or out of range.
    """
    return CRITERIA.make(spec)
