"""All costs of a run by name, and what a candidate costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from .activation_memory import ActivationMemoryCost, ActivationTable
from .cost import Cost, MeasuredCost
from .counted import counted_costs
from .latency import LatencyCost, LatencyTable
from .own import relative_costs
from .tables import Structure

__all__ = ["CostTables", "Costs"]


class CostTables(BaseModel):
    """What costs beside ``flops`` and ``params`` are made of, as plain data: ``costs.json``.

    Attributes:
        activations: ``ActivationTable.to_dict``, where activation memory is named.
        latency: ``LatencyTable.to_dict``, where latency is named.
        own: The user's own costs of the dense network, in their own units, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    activations: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    own: dict[str, float] = Field(default_factory=dict)

    def digests(self) -> dict[str, str]:
        """SHA-256 of each table's content, by the name of its cost."""
        tables = {ActivationMemoryCost.name: self.activations, LatencyCost.name: self.latency}
        return {
            name: hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
            for name, table in tables.items()
            if table is not None
        }


@dataclass(frozen=True)
class Costs(Mapping[str, Cost]):
    """Costs by name: ``flops`` and ``params`` always, and what tables and measurements add.

    Attributes:
        structure: Tables of the network.
        tables: What further costs are made of.
    """

    structure: Structure
    tables: CostTables = field(default_factory=CostTables)

    def __getitem__(self, name: str) -> Cost:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def only(self, names: Iterable[str]) -> Costs:
        """``flops``, ``params`` and those of the further costs that are named."""
        named, tables = set(names), self.tables
        return Costs(
            self.structure,
            CostTables(
                activations=tables.activations if ActivationMemoryCost.name in named else None,
                latency=tables.latency if LatencyCost.name in named else None,
                own={name: dense for name, dense in tables.own.items() if name in named},
            ),
        )

    def of(self, candidates: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """All tabulated costs of candidates.

        Args:
            candidates: Integers [N, D].

        Returns:
            By name, fractions of the dense network's cost, float64 [N].
        """
        rows = np.asarray(candidates, dtype=np.int64)
        return {name: each.fraction(rows) for name, each in self.items() if each.tabulated}

    def of_one(self, candidate: ArrayLike, measured: Mapping[str, float]) -> dict[str, float]:
        """All costs of one candidate.

        Args:
            candidate: Integers [D].
            measured: The user's own costs of its network, in their own units.

        Returns:
            By name, fractions of the dense network's cost; the cost itself where that is 0.
        """
        tabulated = self.of(np.asarray(candidate)[None])
        looked_up = {name: float(values[0]) for name, values in tabulated.items()}
        return {**looked_up, **relative_costs(measured, self.tables.own)}

    def keeps_own(self, limits: Mapping[str, float], measured: Mapping[str, float]) -> bool:
        """Whether the user's own costs, which may depend on weights, are within their limits.

        Args:
            limits: Of all budgets, as fractions of the dense network's costs.
            measured: In their own units; one that is missing could not be measured.
        """
        return all(
            name in measured and measured[name] <= limits[name] * (dense or 1.0)
            for name, dense in self.tables.own.items()
            if name in limits
        )

    @cached_property
    def _by_name(self) -> dict[str, Cost]:
        tables = self.tables
        found = counted_costs(self.structure)
        further: list[Cost] = [MeasuredCost(name, dense) for name, dense in tables.own.items()]
        if tables.activations is not None:
            table = ActivationTable.from_dict(tables.activations)
            further.append(ActivationMemoryCost(table, self.structure.sizes))
        if tables.latency is not None:
            further.append(LatencyCost(self.structure, LatencyTable.from_dict(tables.latency)))
        return {**found, **{cost.name: cost for cost in further}}
