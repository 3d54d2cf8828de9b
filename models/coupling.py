"""Tracing a network for its channel groups and cost tables."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.ops import OPTYPE

from ..errors import NetworkError
from .calls import LayerCall, count_flops, record_layer_calls
from .costs.tables import TIED, GroupInfo, LayerInfo, Share, Structure
from .groups import Axis, ChannelGroup, ChannelGroups, Member
from .layers import LayerFacts, adapter_of, description
from .reductions.channels import ignore_removed, slim
from .units import gather_units
from .zoo.shortcut import PadShortcut

__all__ = ["GroupScope", "trace_channel_groups"]

GroupScope = Literal["inner", "all"]
"""``inner``: groups that one layer produces; ``all``: also residual streams, which several
layers add to."""

_WEIGHTED = (OPTYPE.CONV, OPTYPE.DEPTHWISE_CONV, OPTYPE.LINEAR)


def trace_channel_groups(
    network: nn.Module, example_input: Tensor, scope: GroupScope = "inner"
) -> ChannelGroups:
    """Find the channel groups of a network.

    The coupling comes from Torch-Pruning's dependency graph and is then checked: the slim network
    must equal the dense one that ignores the removed channels where it reads them, and cost what
    the tables say. Groups that fail, or that run through layers we cannot slim, are left alone.

    Args:
        network: The dense network; it is not changed.
        example_input: Images [n, C, H, W] that the network accepts.
        scope: Which groups to return.

    Raises:
        NetworkError: If the network cannot be traced or no group remains.
    """
    calls = record_layer_calls(network, example_input)
    order = {call.name: position for position, call in enumerate(calls)}
    called_once = {call.name for call in calls if call.times == 1}
    found, left_alone = _coupled_channels(network, example_input, order, called_once)
    groups = []
    for group in sorted(found, key=lambda group: order[group.name]):
        if scope == "inner" and _is_stream(group, network):
            left_alone[group.name] = "several layers add to it (a residual stream)"
        elif not _is_sound(network, example_input, group):
            left_alone[group.name] = "its channels are mixed in a way we cannot trace"
        else:
            groups.append(group)
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
            + "; use a convolutional network with at least two layers in a row."
        )
    return ChannelGroups(tuple(groups), structure, left_alone)


def _coupled_channels(
    network: nn.Module, example_input: Tensor, order: Mapping[str, int], called_once: set[str]
) -> tuple[list[ChannelGroup], dict[str, str]]:
    surrogate = _without_pad_shortcuts(network)
    names = {module: name for name, module in surrogate.named_modules()}
    graph = torch_pruning.DependencyGraph()
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph.build_dependency(surrogate, (example_input[:1].clone(),), verbose=False)
        raw_groups = list(graph.get_all_groups())
    except Exception as error:
        raise NetworkError(
            f"The network cannot be traced for coupled channels ({type(error).__name__}: {error}); "
            "give its awkward part a plain convolutional form."
        ) from error
    groups: list[ChannelGroup] = []
    left_alone: dict[str, str] = {}
    for raw in raw_groups:
        producers = [
            names[item.dep.target.module]
            for item in raw
            if graph.is_out_channel_pruning_fn(item.dep.handler)
            and item.dep.target.type in _WEIGHTED
            and type(network.get_submodule(names[item.dep.target.module])) is not PadShortcut
        ]
        if not producers or any(item.dep.target.type == OPTYPE.PARAMETER for item in raw):
            continue
        name = min(producers, key=lambda layer: order.get(layer, len(order)))
        outcome = _read_group(raw, graph, names, network, name, order, called_once)
        if isinstance(outcome, str):
            left_alone[name] = outcome
        elif any(True for _ in outcome.readers()):  # channels that nobody reads are the outputs
            groups.append(outcome)
    return groups, left_alone


def _without_pad_shortcuts(network: nn.Module) -> nn.Module:
    """A copy with a strided 1x1 convolution in place of every zero-padding shortcut.

    The two sides of a convolution are independent of each other, as those of the slimmed shortcut
    are; its slices and pads would couple whole stages.
    """
    surrogate = copy.deepcopy(network)
    for parameter in surrogate.parameters():
        parameter.requires_grad_(True)
    for name, module in network.named_modules():
        if type(module) is PadShortcut:
            surrogate.set_submodule(
                name,
                nn.Conv2d(
                    module.in_channels, module.out_channels, 1, stride=module.stride, bias=False
                ),
            )
    return surrogate


def _read_group(
    raw: torch_pruning.Group,
    graph: torch_pruning.DependencyGraph,
    names: dict[nn.Module, str],
    network: nn.Module,
    name: str,
    order: Mapping[str, int],
    called_once: set[str],
) -> ChannelGroup | str:
    """The group in our own terms, or the reason why it is left alone."""
    size = max(max(item.root_idxs) for item in raw) + 1
    members: list[Member] = []
    for item in raw:
        module = item.dep.target.module
        if module not in names:  # an operation without parameters (addition, reshape, ...)
            continue
        layer = names[module]
        original = network.get_submodule(layer)
        adapter = adapter_of(original)
        if adapter is None:
            return f"it runs through {layer}, {description(original)}"
        if adapter.passes_all(original):
            continue
        obstacle = adapter.obstacle(original)
        if obstacle is not None:
            return f"it runs through {layer}, {obstacle}"
        if layer not in called_once:
            return f"it runs through {layer}, which the network uses more than once"
        is_out = graph.is_out_channel_pruning_fn(item.dep.handler)
        channels: list[list[int]] = [[] for _ in range(size)]
        for root, channel in zip(item.root_idxs, item.idxs, strict=True):
            channels[root].append(channel)
        if len({len(owned) for owned in channels}) != 1:
            return f"its channels reach {layer} unevenly"
        axis: Axis = "out" if is_out else "in"
        members.append(Member(layer, axis, np.array(channels, dtype=np.int64)))
    members.sort(key=lambda member: order[member.layer])
    units = gather_units(members, network)
    if isinstance(units, str):
        return units
    return ChannelGroup(name, len(units[0].channels), units)


def _is_stream(group: ChannelGroup, network: nn.Module) -> bool:
    modules = [network.get_submodule(member.layer) for member in group.producers()]
    adapters = [(adapter_of(module), module) for module in modules]
    return sum(bool(adapter and adapter.makes_channels(layer)) for adapter, layer in adapters) > 1


def _is_sound(network: nn.Module, example_input: Tensor, group: ChannelGroup) -> bool:
    """Whether a slim network equals the dense one that ignores the removed channels."""
    units = np.arange(0, group.size, 2, dtype=np.int64)
    images = torch.randn((2, *example_input.shape[1:]), generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            slimmed = slim(network, [group], [units])(images)
            masked = ignore_removed(network, [group], [units])(images)
    except (RuntimeError, ValueError, IndexError):
        return False
    scale = float(masked.abs().max()) + 1e-12
    return bool(torch.allclose(slimmed, masked, atol=1e-4 * scale, rtol=1e-3))


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
