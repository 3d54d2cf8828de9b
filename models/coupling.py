"""Tracing a network for its channel groups and cost tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import NetworkError
from .calls import LayerCall, count_flops, record_layer_calls
from .costs.tables import TIED, GroupInfo, LayerInfo, Share, Structure
from .groups import Axis, ChannelGroup, ChannelGroups
from .layers import LayerFacts, adapter_of, multiplies, tied_layers
from .reductions.channels import slim
from .soundness import sound_groups
from .tracing.grouping import group_channels
from .tracing.passes import Pass, label_ranges
from .tracing.paths import follow_channels

__all__ = ["GroupScope", "trace_channel_groups"]

GroupScope = Literal["inner", "all"]
"""``inner``: groups that no two layers add to; ``all``: also residual streams, which several layers
add to."""


def trace_channel_groups(
    network: nn.Module, example_input: Tensor, scope: GroupScope = "inner"
) -> ChannelGroups:
    """Find the channel groups of a network.

    The coupling comes from following every channel through a forward pass, in about the time and
    memory of a few of these, and is then checked: the slim network must equal the dense one that
    ignores the removed channels where it reads them, whatever the weights, and cost what the
    tables say. Groups that fail, or that run through layers we cannot slim, are left alone.

    Args:
        network: The dense network; it is not changed.
        example_input: Images [n, C, H, W] that the network accepts.
        scope: Which groups to return.

    Raises:
        NetworkError: If the network does not accept the images or no group remains.
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise NetworkError(
            "The network is scripted, so that its layers cannot be changed; give it as it was "
            "before torch.jit.script or torch.jit.trace."
        )
    example_input = example_input[:1]
    calls = record_layer_calls(network, example_input)
    found, undecided = follow_channels(network, example_input)
    obstacles = {**_obstacles(network, found), **undecided}
    grouping = group_channels(network, found, label_ranges(network), obstacles)
    left_alone = dict(grouping.left_alone)
    for name, kind in found.foreign.items():
        left_alone.setdefault(name, f"it runs through {name}, {kind}")
    for name, obstacle in obstacles.items():
        if multiplies(network.get_submodule(name)):
            left_alone.setdefault(name, f"it runs through {name}, {obstacle}")
    candidates = []
    for group in grouping.groups:
        if scope == "inner" and group.name in grouping.streams:
            left_alone[group.name] = "several layers add to it (a residual stream)"
        else:
            candidates.append(group)
    groups, unsound = sound_groups(network, example_input, candidates)
    left_alone.update(unsound)
    structure = _tabulate(network, example_input, calls, groups)
    if not _is_exact(network, groups, structure, range(len(groups))):
        for index, group in enumerate(groups):
            if not _is_exact(network, groups, structure, [index]):
                left_alone[group.name] = "operations on its channels are in no cost table"
        groups = [group for group in groups if group.name not in left_alone]
        structure = _tabulate(network, example_input, calls, groups)
    if not groups:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_alone.items())
        raise NetworkError(
            "The network has no channels that can be removed"
            + (f" ({reasons})" if reasons else "")
            + "; use a convolutional network with at least two layers in a row"
            + (
                ", or take all groups (groups: all)."
                if len(candidates) < len(grouping.groups)
                else "."
            )
        )
    return ChannelGroups(tuple(groups), structure, left_alone)


def _obstacles(network: nn.Module, found: Pass) -> dict[str, str]:
    """What is special about the way in which layers are used that must be left alone."""
    obstacles = {
        name: f"which shares its weights with {other}"
        for name, other in tied_layers(network).items()
    }
    for name in sorted(found.outside):
        obstacles.setdefault(name, "whose weights are read besides")
    for name, uses in found.calls.items():
        if len(uses) > 1:
            obstacles[name] = "which the network uses more than once"
    return obstacles


def _is_exact(
    network: nn.Module,
    groups: Sequence[ChannelGroup],
    structure: Structure,
    halved: Iterable[int],
) -> bool:
    """Whether the tables have the FLOPs of the network with some groups at half width."""
    units = [np.arange(group.size, dtype=np.int64) for group in groups]
    for index in halved:
        units[index] = units[index][::2]
    counted = count_flops(slim(network, groups, units), torch.zeros(1, *structure.input_shape))
    return counted == int(structure.flops([len(chosen) for chosen in units]))


def _tabulate(
    network: nn.Module,
    example_input: Tensor,
    calls: Sequence[LayerCall],
    groups: Sequence[ChannelGroup],
) -> Structure:
    shares: dict[tuple[str, Axis], list[tuple[int, int]]] = {}
    for index, group in enumerate(groups):
        for member in group.members:
            shares.setdefault((member.layer, member.axis), []).append(
                (index, member.channels.shape[1])
            )
    layers = []
    for call in calls:
        module = network.get_submodule(call.name)
        adapter = adapter_of(module)
        facts = None if adapter is None else adapter.facts(module)
        if adapter is None or facts is None:
            continue
        for sizes in zip(call.input_sizes, call.output_sizes, strict=True):
            channels = adapter.channels(module)
            layers.append(_layer_info(call.name, facts, channels, *sizes, shares, groups))
    planes, height, width = example_input.shape[1:]
    listed = Structure(
        groups=tuple(GroupInfo(group.name, group.size) for group in groups),
        layers=tuple(layers),
        input_shape=(int(planes), int(height), int(width)),
    )
    # What the table does not list, or lists twice, touches no group, so it is constant.
    return replace(
        listed,
        other_flops=count_flops(network, example_input[:1]) - listed.dense_flops,
        other_params=sum(each.numel() for each in network.parameters()) - listed.dense_params,
    )


def _layer_info(
    name: str,
    facts: LayerFacts,
    channels: tuple[int, int],
    input_size: tuple[int, int],
    output_size: tuple[int, int],
    shares: dict[tuple[str, Axis], list[tuple[int, int]]],
    groups: Sequence[ChannelGroup],
) -> LayerInfo:
    outputs, inputs = channels
    read: Share = tuple(shares.get((name, "in"), ()))
    written: Share = tuple(shares.get((name, "out"), ()))
    if facts.kind in TIED:
        read = written
    return LayerInfo(
        name=name,
        kind=facts.kind,
        inputs=read,
        fixed_inputs=inputs - sum(groups[group].size * per_unit for group, per_unit in read),
        outputs=written,
        fixed_outputs=outputs - sum(groups[group].size * per_unit for group, per_unit in written),
        kernel=facts.kernel,
        stride=facts.stride,
        input_size=input_size,
        output_size=output_size,
        groups=facts.groups,
        bias=facts.bias,
    )
