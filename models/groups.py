"""Channel groups: which channels of which layers live or die together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .costs.tables import Structure

__all__ = ["Axis", "ChannelGroup", "ChannelGroups", "Member"]

Axis = Literal["out", "in"]


@dataclass(frozen=True, eq=False)
class Member:
    """One side of one layer that a channel group runs through.

    Attributes:
        layer: Qualified module name.
        axis: ``out`` where the layer produces (or normalises) the channels, ``in`` where it
            reads them. A depthwise convolution is a member once, as ``out``.
        channels: The layer's channels that belong to each unit, int64 [units, channels per unit].
    """

    layer: str
    axis: Axis
    channels: NDArray[np.int64]

    def kept(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """The layer's channels of ``units`` [w], ascending, int64 [w * channels per unit]."""
        return np.sort(self.channels[units].reshape(-1))


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that must live or die together across coupled layers.

    Attributes:
        name: Name of the layer that produces the channels (the first one of several).
        size: Units in the dense network.
        members: Every side of every layer that the group runs through, in the order of execution.
    """

    name: str
    size: int
    members: tuple[Member, ...]

    def readers(self) -> Iterator[Member]:
        """Members that read the group's channels."""
        return (member for member in self.members if member.axis == "in")

    def producers(self) -> Iterator[Member]:
        """Members that produce or normalise the group's channels."""
        return (member for member in self.members if member.axis == "out")


@dataclass(frozen=True, eq=False)
class ChannelGroups:
    """The channel groups of a network, with its cost tables.

    Attributes:
        groups: The groups that a candidate gives widths to, in the order of execution.
        structure: Exact cost tables of any candidate.
        left_alone: Why a layer's output channels stay as they are, by layer name; the network's
            own outputs are not listed.
    """

    groups: tuple[ChannelGroup, ...]
    structure: Structure
    left_alone: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Units per group in the dense network."""
        return tuple(group.size for group in self.groups)
