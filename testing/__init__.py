"""Checks that users run on their own plug-ins, in any test framework or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from .agents import check_agent
    from .costs import check_cost
    from .criteria import check_criterion
    from .measures import check_measure
    from .reductions import check_reduction
    from .rewards import COST_RANGES, MEASURE_RANGES, check_reward, random_evaluations

__all__ = [
    "COST_RANGES",
    "MEASURE_RANGES",
    "check_agent",
    "check_cost",
    "check_criterion",
    "check_measure",
    "check_reduction",
    "check_reward",
    "random_evaluations",
]

_MODULES = {
    ".agents": ("check_agent",),
    ".costs": ("check_cost",),
    ".criteria": ("check_criterion",),
    ".measures": ("check_measure",),
    ".reductions": ("check_reduction",),
    ".rewards": ("COST_RANGES", "MEASURE_RANGES", "check_reward", "random_evaluations"),
}
__getattr__ = lazily(
    __name__, {name: module for module, names in _MODULES.items() for name in names}
)
