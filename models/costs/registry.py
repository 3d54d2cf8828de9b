"""The costs that a spec may name, and how they are gathered once for a task."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ..._references import is_reference
from ..._registry import Registry
from ..groups import ChannelGroups
from ..progress import SILENT, Progress
from ..task import PruningTask
from .activation_memory import (
    ActivationMemoryCost,
    measure_peak_activations,
    tabulate_activations,
)
from .collection import Costs, CostTables
from .cost import Cost
from .counted import FlopsCost, ParamsCost
from .latency import LatencyCost
from .latency_measuring import fit_latency, measure_latency
from .own import OwnCosts

__all__ = ["COSTS", "check_costs", "gather_costs", "measure_costs", "own_costs"]

COSTS: Registry[Cost] = Registry(
    "cost",
    {cost.name: cost for cost in (FlopsCost, ParamsCost, ActivationMemoryCost, LatencyCost)},
    forms={"FILE.py:FUNCTION": "A function of the network and one image: the user's own cost."},
)
"""Our own costs."""


def check_costs(names: Iterable[str], own: bool = True) -> None:
    """Check that there are such costs, before time is spent on anything.

    Args:
        names: Names of ours, or references to the user's own.
        own: Whether the user's own files are imported; otherwise their names are believed.

    Raises:
        UnknownNameError: If none of ours has that name.
        PluginError: If the user's own cannot be imported.
    """
    for name in names:
        COSTS.check(name, own)


def own_costs(names: Iterable[str]) -> tuple[str, ...]:
    """Those of them that are the user's own, in alphabetical order."""
    return tuple(sorted({name for name in names if is_reference(name)}))


def gather_costs(
    names: Iterable[str],
    task: PruningTask,
    groups: ChannelGroups,
    known: CostTables | None = None,
    progress: Progress = SILENT,
) -> Costs:
    """Gather the costs that are named, once for a task.

    Args:
        names: Names of costs, by budgets or by rewards.
        task: The task.
        groups: Its channel groups.
        known: What is known already, such as the tables of the run that is continued: latencies
            must not change in the middle of it.
        progress: Receives a note of what takes long.

    Returns:
        ``flops``, ``params``, what is named, and what is known.

    Raises:
        NetworkError: If the network's activation memory cannot be tabulated.
        PluginError: If one of the user's own costs cannot be imported.
        EvaluationError: If one of the user's own costs cannot be computed.
    """
    named = set(names)
    known = known or CostTables()
    activations, latency, own = known.activations, known.latency, dict(known.own)
    if ActivationMemoryCost.name in named and activations is None:
        activations = tabulate_activations(task.network, task.example_input, groups).to_dict()
    if LatencyCost.name in named and latency is None:
        latency = fit_latency(task, groups, progress).to_dict()
    unknown = [name for name in own_costs(named) if name not in own]
    own.update(OwnCosts(unknown, task.example_input).measure(task.network))
    return Costs(groups.structure, CostTables(activations=activations, latency=latency, own=own))


def measure_costs(names: Iterable[str], network: nn.Module, task: PruningTask) -> dict[str, float]:
    """Measure what a network as it is delivered really costs, where a table could be wrong.

    Args:
        names: Names of the budgets' costs.
        network: On the CPU, float32, in evaluation mode.
        task: The task.

    Returns:
        Latency in seconds, activation memory in bytes and the user's own costs, by name.

    Raises:
        EvaluationError: If one of the user's own costs cannot be computed.
    """
    named = list(names)
    found = OwnCosts(own_costs(named), task.example_input).measure(network)
    if ActivationMemoryCost.name in named:
        found[ActivationMemoryCost.name] = float(
            measure_peak_activations(network, task.example_input)
        )
    if LatencyCost.name in named:
        found[LatencyCost.name] = measure_latency(network, task.example_input)
    return found
