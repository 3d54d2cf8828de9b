"""From labels to channel groups: which channels live or die together, and in which layers."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn

from ..groups import Axis, ChannelGroup, Member
from ..layers import multiplies
from ..units import gather_units
from .labels import FIXED, Findings
from .passes import Call, Pass

__all__ = ["Grouping", "group_channels"]


@dataclass(frozen=True)
class Grouping:
    """Channel groups, not yet checked.

    Attributes:
        groups: In the order of execution.
        streams: Names of those whose channels several layers add to.
        left_alone: Why a layer's output channels stay as they are, by layer name.
    """

    groups: tuple[ChannelGroup, ...]
    streams: frozenset[str]
    left_alone: dict[str, str]


@dataclass(frozen=True)
class _Side:
    """One side of one layer: for each of its channels a label, which turns into a unit later."""

    layer: str
    axis: Axis
    labels: NDArray[np.int64]


def group_channels(
    network: nn.Module, found: Pass, ranges: Mapping[str, range], obstacles: Mapping[str, str]
) -> Grouping:
    """Gather the channels that live or die together into groups.

    Channels are tied where a network combines them. Tied channels that occur in the same layers,
    equally often, form one group.

    Args:
        network: The dense network.
        found: What following its channels showed.
        ranges: Labels of the channels that each layer makes.
        obstacles: What is special about layers that must be left alone, by name.
    """
    findings = Findings()
    findings.join(found.findings)
    sides = list(_sides(found.calls, ranges))
    for side in sides:
        if side.layer in obstacles:
            findings.fix(side.labels, f"it runs through {side.layer}, {obstacles[side.layer]}")
    count = max((labels.stop for labels in ranges.values()), default=0)
    tied = _tied(findings, count)
    reasons = _reasons(findings, tied)
    makers = {
        side.layer: tied[side.labels]
        for side in sides
        if side.axis == "out"
        and side.layer in ranges
        and multiplies(network.get_submodule(side.layer))
    }
    added = _added(findings, ranges, tied)
    left_alone: dict[str, str] = {}
    streams: set[str] = set()
    groups: dict[str, ChannelGroup] = {}
    for units in _alike(sides, tied, reasons):
        members = tuple(_members(units, sides, tied))
        name = _name(units, makers, groups)
        if name is None or not any(member.axis == "in" for member in members):
            continue  # nobody computes these channels, or they are outputs of the network
        gathered = gather_units(members, network)
        if isinstance(gathered, str):
            left_alone[name] = gathered
            continue
        groups[name] = ChannelGroup(name, len(gathered[0].channels), gathered)
        if np.isin(units, added).any():
            streams.add(name)
    for unit, reason in reasons.items():
        maker = _name(np.array([unit]), makers, {})
        if reason is not None and maker is not None and maker not in groups:
            left_alone.setdefault(maker, reason)
    order = {layer: place for place, layer in enumerate(found.calls)}
    ordered = sorted(groups.values(), key=lambda group: order[group.name])
    return Grouping(tuple(ordered), frozenset(streams), left_alone)


def _name(
    units: NDArray[np.int64], makers: Mapping[str, NDArray[np.int64]], taken: Container[str]
) -> str | None:
    """The first layer that makes some of these units and names no other group."""
    for layer, made in makers.items():
        if layer not in taken and np.isin(made, units).any():
            return layer
    return None


def _sides(calls: Mapping[str, list[Call]], ranges: Mapping[str, range]) -> Iterator[_Side]:
    for layer, uses in calls.items():
        for use in uses:
            if layer in ranges:
                yield _Side(layer, "in", use.read)
            written = np.array(ranges[layer], dtype=np.int64) if layer in ranges else use.read
            yield _Side(layer, "out", written)


def _tied(findings: Findings, count: int) -> NDArray[np.int64]:
    """For each label the number of its unit, int64 [labels + 1]; the last is that of FIXED."""
    pairs = np.concatenate([np.zeros((0, 2), dtype=np.int64), *findings.ties])
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    units = connected_components(graph, directed=False)[1].astype(np.int64)
    return np.append(units, FIXED)


def _reasons(findings: Findings, tied: NDArray[np.int64]) -> dict[int, str | None]:
    """Why a unit must stay, by its number: what was found first."""
    reasons: dict[int, str | None] = {}
    for labels, reason in findings.fixed:
        for unit in np.unique(tied[labels]).tolist():
            reasons.setdefault(unit, reason)
    return reasons


def _added(
    findings: Findings, ranges: Mapping[str, range], tied: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Units whose channels are sums of those of several layers."""
    starts = np.array(sorted(labels.start for labels in ranges.values()), dtype=np.int64)
    pairs = np.concatenate([np.zeros((0, 2), dtype=np.int64), *findings.sums])
    makers = np.searchsorted(starts, pairs, side="right")
    return np.unique(tied[pairs[makers[:, 0] != makers[:, 1]]])


def _alike(
    sides: list[_Side], tied: NDArray[np.int64], reasons: Container[int]
) -> list[NDArray[np.int64]]:
    """Units that occur in the same sides equally often, in the order in which they are met.

    Args:
        sides: All sides.
        tied: For each label its unit.
        reasons: Units that must stay.
    """
    kinds = np.zeros(tied.max(initial=0) + 1, dtype=np.int64)
    met: dict[int, None] = {}
    for side in sides:
        units = tied[side.labels]
        units = units[units != FIXED]
        met.update(dict.fromkeys(units.tolist()))
        present, counts = np.unique(units, return_counts=True)
        # Kinds are told apart by what they were before and by how often they occur here.
        occurs = np.zeros_like(kinds)
        occurs[present] = counts
        kinds = np.unique(np.stack([kinds, occurs]), axis=1, return_inverse=True)[1].reshape(-1)
    by_kind: dict[int, list[int]] = {}
    for unit in met:
        if unit not in reasons:
            by_kind.setdefault(int(kinds[unit]), []).append(unit)
    return [np.array(units, dtype=np.int64) for units in by_kind.values()]


def _members(
    units: NDArray[np.int64], sides: list[_Side], tied: NDArray[np.int64]
) -> Iterator[Member]:
    # The last place is that of FIXED.
    place = np.full(tied.max() + 2, -1, dtype=np.int64)
    place[units] = np.arange(len(units))
    for side in sides:
        places = place[tied[side.labels]]
        found = np.flatnonzero(places >= 0)
        if len(found):
            ordered = found[np.argsort(places[found], kind="stable")]
            yield Member(side.layer, side.axis, ordered.reshape(len(units), -1))
