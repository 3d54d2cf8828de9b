"""All names and parameters of a spec, checked when it is read; and what a spec may name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..._live import is_live
from ..._registry import Registry
from ...models.costs.registry import check_costs
from ...models.criteria import CRITERIA
from ...models.data import DATA
from ...models.zoo.build import check_model
from ...rewards.registry import REWARDS, make_measures, make_reward
from .model import SearchSpec

__all__ = ["REGISTRIES", "check_names", "registry"]

_PACKAGE = __package__.partition(".")[0]

REGISTRIES: Mapping[str, str] = MappingProxyType(
    {
        "models": f"{_PACKAGE}.models.zoo.build:NETWORKS",
        "data": f"{_PACKAGE}.models.data.load:DATA",
        "costs": f"{_PACKAGE}.models.costs.registry:COSTS",
        "measures": f"{_PACKAGE}.rewards.registry:MEASURES",
        "rewards": f"{_PACKAGE}.rewards.registry:REWARDS",
        "criteria": f"{_PACKAGE}.models.criteria:CRITERIA",
        "agents": f"{_PACKAGE}.search.agents.registry:AGENTS",
    }
)
"""Where the registry of everything that a spec may name is: ``prunetune list`` shows them."""


def registry(names: str) -> Registry[Any]:
    """One of ``REGISTRIES``."""
    module, _, attribute = REGISTRIES[names].partition(":")
    found: Registry[Any] = getattr(importlib.import_module(module), attribute)
    return found


def check_names(spec: SearchSpec, own: bool = True) -> None:
    """Check every name in a spec with its parameters, before time is spent on anything.

    Args:
        spec: Its paths start from the working directory.
        own: Whether the user's own files are imported; otherwise what is named there is believed.

    Raises:
        UnknownNameError: If there is no such name; the message suggests the nearest.
        PluginError: If the user's own cannot be imported or is not what it should be.
        SpecError: If a parameter is unknown, missing, of the wrong type or out of range.
    """
    if not is_live(spec.task.model):
        # A session's own task is checked when it is made; whether it is there, when it is loaded.
        check_model(spec.task.model, own)
        DATA.check(spec.task.data.name, own)
    compare = spec.compare
    for budgets in (spec.budgets, *compare.budgets):
        check_costs(budgets, own)
    CRITERIA.check(spec.criterion, own)
    if own:
        # Two measures must not write one column.
        make_measures(spec.measures)
    else:
        for measure in spec.measures:
            registry("measures").check(measure, own)
    for reward in (spec.reward, *compare.rewards):
        REWARDS.check(reward, own)
        if own:
            check_costs(make_reward(reward).costs)
    for agent in (spec.agent, *compare.agents):
        registry("agents").check(agent, own)
