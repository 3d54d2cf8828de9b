"""Criteria rank the channels inside a group."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..._registry import is_reference, pick, resolve
from ...errors import PluginError
from .criterion import Criterion, Evidence, ScoreCriterion
from .magnitude import L1, L2, BNScale, GeometricMedian, Random
from .residual import ActivationResidual
from .taylor import Taylor

__all__ = ["CRITERIA", "Criterion", "Evidence", "ScoreCriterion", "make_criterion"]

CRITERIA: Mapping[str, type[Criterion]] = MappingProxyType(
    {
        criterion.name: criterion
        for criterion in (ActivationResidual, L1, L2, BNScale, GeometricMedian, Taylor, Random)
    }
)


def make_criterion(name: str) -> Criterion:
    """Build a criterion by name.

    Args:
        name: One of ``CRITERIA``, or the user's own ``module:Class`` or ``path/to/file.py:Class``.

    Raises:
        UnknownNameError: If none of ours has that name.
        PluginError: If the user's own cannot be imported or is not a ``Criterion``.
    """
    target = resolve(name, "criterion") if is_reference(name) else pick("criterion", name, CRITERIA)
    if isinstance(target, Criterion):
        return target
    if not isinstance(target, type) or not issubclass(target, Criterion):
        raise PluginError(
            f"The criterion {name!r} must be a subclass of prunetune.models.Criterion."
        )
    return target()
