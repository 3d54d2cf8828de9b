"""The costs that a run's budgets limit: known names, tables gathered once, and what is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ..._registry import is_reference
from ..groups import ChannelGroups
from ..progress import SILENT, Progress
from ..task import PruningTask
from .activation_memory import (
    ActivationTable,
    measure_peak_activations,
    tabulate_activations,
)
from .cost import (
    ACTIVATION_MEMORY,
    COSTS,
    LATENCY,
    ActivationMemoryCost,
    Cost,
    LatencyCost,
    MeasuredCost,
)
from .latency import LatencyTable, fit_latency, measure_latency
from .own import OwnCosts
from .tables import Structure

__all__ = ["CostTables", "check_costs", "gather_cost_tables", "measure_costs", "own_costs"]


class CostTables(BaseModel):
    """Costs beside those that the structure alone tells, as plain data.

    Attributes:
        activations: ``ActivationTable.to_dict``, where a budget limits activation memory.
        latency: ``LatencyTable.to_dict``, where a budget limits latency.
        own: The user's own costs of the dense network, in their own units, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    activations: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    own: dict[str, float] = Field(default_factory=dict)

    def costs(self, structure: Structure) -> tuple[Cost, ...]:
        """The costs themselves."""
        found: list[Cost] = [MeasuredCost(name, dense) for name, dense in self.own.items()]
        if self.activations is not None:
            table = ActivationTable.from_dict(self.activations)
            found.append(ActivationMemoryCost(table, structure.sizes))
        if self.latency is not None:
            found.append(LatencyCost(structure, LatencyTable.from_dict(self.latency)))
        return tuple(found)

    def keeps_own(self, limits: Mapping[str, float], measured: Mapping[str, float]) -> bool:
        """Whether the user's own costs, which may depend on weights, are within their limits.

        Args:
            limits: Of all budgets, as fractions of the dense network's costs.
            measured: In their own units; one that is missing could not be measured.
        """
        return all(
            name in measured and measured[name] <= limits[name] * (dense or 1.0)
            for name, dense in self.own.items()
            if name in limits
        )


def check_costs(names: Iterable[str], own: bool = True) -> None:
    """Check that there are such costs, before time is spent on anything.

    Args:
        names: Of ours, or references to the user's own.
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


def gather_cost_tables(
    names: Iterable[str],
    task: PruningTask,
    groups: ChannelGroups,
    own: Mapping[str, float],
    known: CostTables | None = None,
    progress: Progress = SILENT,
) -> CostTables:
    """Gather the tables of the costs that are named.

    Args:
        names: Of all budgets.
        task: The task.
        groups: Its channel groups.
        own: The user's own costs of the dense network.
        known: Those of the run that is continued: latencies must not change in the middle.
        progress: Told of what takes long.

    Raises:
        NetworkError: If the network's activation memory cannot be tabulated.
    """
    activations = latency = None
    named = set(names)
    if ACTIVATION_MEMORY in named:
        table = tabulate_activations(task.network, task.example_input, groups)
        activations = table.to_dict()
    if LATENCY in named:
        latency = known.latency if known is not None else None
        if latency is None:
            latency = fit_latency(task, groups, progress).to_dict()
    return CostTables(activations=activations, latency=latency, own=dict(own))


def measure_costs(names: Iterable[str], network: nn.Module, task: PruningTask) -> dict[str, float]:
    """What a network as it is delivered really costs, where that takes a measurement.

    Args:
        names: Of the budgets.
        network: On the CPU, float32, in evaluation mode.
        task: The task.

    Returns:
        Latency in seconds, activation memory in bytes and the user's own costs, by name.

    Raises:
        EvaluationError: If one of the user's own costs cannot be computed.
    """
    named = list(names)
    found = OwnCosts(own_costs(named), task.example_input).measure(network)
    if ACTIVATION_MEMORY in named:
        found[ACTIVATION_MEMORY] = float(measure_peak_activations(network, task.example_input))
    if LATENCY in named:
        found[LATENCY] = measure_latency(network, task.example_input)
    return found
