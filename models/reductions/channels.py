"""Building the physically smaller network of a candidate, without copying what does not change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..calls import is_depthwise
from ..groups import ChannelGroup
from ..zoo.shortcut import PadShortcut

__all__ = ["ignore_removed", "kept_channels", "shallow_copy", "slim"]

KeptUnits = Sequence[NDArray[np.int64]]
"""Per group, the units that stay: ascending int64 [w]."""

KeptChannels = dict[str, tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]]
"""Per layer, its output and input channels that stay; None where no group decides them."""


def kept_channels(
    network: nn.Module, groups: Iterable[ChannelGroup], kept: KeptUnits
) -> KeptChannels:
    """Which channels of every affected layer stay.

    Args:
        network: The dense network.
        groups: Its channel groups.
        kept: Per group, the units that stay.

    Returns:
        Per layer, ascending int64 indices of the output and the input channels that stay.
    """
    removed: dict[tuple[str, str], list[NDArray[np.int64]]] = {}
    for group, units in zip(groups, kept, strict=True):
        gone = np.setdiff1d(np.arange(group.size), units)
        for member in group.members:
            removed.setdefault((member.layer, member.axis), []).append(member.kept(gone))
    result: KeptChannels = {}
    for layer in dict.fromkeys(name for name, _ in removed):
        counts = _channel_counts(network.get_submodule(layer))
        sides = [
            np.setdiff1d(np.arange(counts[axis]), np.concatenate(removed[layer, axis]))
            if (layer, axis) in removed
            else None
            for axis in ("out", "in")
        ]
        result[layer] = (sides[0], sides[1])
    return result


def slim(network: nn.Module, groups: Iterable[ChannelGroup], kept: KeptUnits) -> nn.Module:
    """The physically smaller network of a candidate.

    Layers that no group runs through are shared with ``network``, except BatchNorm layers, whose
    statistics a candidate re-estimates.

    Args:
        network: The dense network; it is not changed.
        groups: Its channel groups.
        kept: Per group, the units that stay.

    Returns:
        A network of the same class and module names.
    """
    channels = kept_channels(network, groups, kept)

    def replace(name: str, module: nn.Module) -> nn.Module | None:
        if name in channels:
            return _slim_layer(module, *channels[name])
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            return _slim_norm(module, None)
        return None

    return shallow_copy(network, replace)


def ignore_removed(
    network: nn.Module, groups: Iterable[ChannelGroup], kept: KeptUnits
) -> nn.Module:
    """A full-size copy whose layers ignore removed channels where they read them.

    Args and return value as for :func:`slim`; outputs are equal to those of the slim network. This
    is the slow oracle that the coupling is checked against.
    """
    ignorant = copy.deepcopy(network)
    with torch.no_grad():
        for group, units in zip(groups, kept, strict=True):
            gone = np.setdiff1d(np.arange(group.size), units)
            for member in group.readers():
                module = ignorant.get_submodule(member.layer)
                channels = member.kept(gone)
                if isinstance(module, PadShortcut):
                    lost = set(channels.tolist())
                    module.source = tuple(-1 if c in lost else c for c in module.source)
                    continue
                weight = module.weight
                assert isinstance(weight, Tensor)
                weight[:, _within_group(module, channels)] = 0
    return ignorant


def shallow_copy(
    module: nn.Module, replace: Callable[[str, nn.Module], nn.Module | None], prefix: str = ""
) -> nn.Module:
    """A module tree that shares everything with ``module`` but what ``replace`` returns anew.

    Args:
        module: The root.
        replace: Given a qualified name and a module, its replacement, or None to look inside.
        prefix: Qualified name of ``module``, ending in a dot.
    """
    duplicate = copy.copy(module)
    duplicate._modules = dict(module._modules)
    for name, child in module._modules.items():
        if child is None:
            continue
        replacement = replace(prefix + name, child)
        if replacement is None and child._modules:
            replacement = shallow_copy(child, replace, f"{prefix}{name}.")
        if replacement is not None:
            duplicate._modules[name] = replacement
    return duplicate


def _channel_counts(module: nn.Module) -> dict[str, int]:
    if isinstance(module, nn.Conv2d | PadShortcut):
        return {"out": module.out_channels, "in": module.in_channels}
    if isinstance(module, nn.Linear):
        return {"out": module.out_features, "in": module.in_features}
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    return {"out": module.num_features, "in": module.num_features}


def _slim_layer(
    module: nn.Module,
    outputs: NDArray[np.int64] | None,
    inputs: NDArray[np.int64] | None,
) -> nn.Module:
    if isinstance(module, PadShortcut):
        return _slim_shortcut(module, outputs, inputs)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return _slim_norm(module, outputs)
    assert isinstance(module, nn.Conv2d | nn.Linear)
    weight = module.weight.detach()
    if outputs is not None:
        weight = weight[torch.from_numpy(outputs)]
    if inputs is not None:
        weight = weight[:, torch.from_numpy(_within_group(module, inputs))]
    duplicate = _duplicate(module)
    duplicate._parameters["weight"] = nn.Parameter(weight.clone(), requires_grad=False)
    if module.bias is not None:
        bias = module.bias.detach()
        duplicate._parameters["bias"] = nn.Parameter(
            (bias if outputs is None else bias[torch.from_numpy(outputs)]).clone(),
            requires_grad=False,
        )
    n_out = weight.shape[0]
    if isinstance(duplicate, nn.Linear):
        duplicate.out_features, duplicate.in_features = n_out, weight.shape[1]
    else:
        assert isinstance(duplicate, nn.Conv2d)
        if is_depthwise(module):
            duplicate.groups = n_out
        duplicate.out_channels = n_out
        duplicate.in_channels = weight.shape[1] * duplicate.groups
    return duplicate


def _within_group(module: nn.Module, channels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Input channels as indices of the weight's second axis, the same in every group."""
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        return np.unique(channels % (module.in_channels // module.groups))
    return channels


def _slim_norm(
    module: nn.BatchNorm1d | nn.BatchNorm2d, channels: NDArray[np.int64] | None
) -> nn.BatchNorm1d | nn.BatchNorm2d:
    duplicate = _duplicate(module)
    assert isinstance(duplicate, nn.BatchNorm1d | nn.BatchNorm2d)
    index = None if channels is None else torch.from_numpy(channels)
    for key, parameter in module._parameters.items():
        if parameter is not None:
            value = parameter.detach()
            duplicate._parameters[key] = nn.Parameter(
                value.clone() if index is None else value[index], requires_grad=False
            )
    for key, buffer in module._buffers.items():
        if buffer is not None:
            duplicate._buffers[key] = (
                buffer[index] if index is not None and buffer.dim() else buffer.clone()
            )
    if channels is not None:
        duplicate.num_features = len(channels)
    return duplicate


def _slim_shortcut(
    module: PadShortcut, outputs: NDArray[np.int64] | None, inputs: NDArray[np.int64] | None
) -> PadShortcut:
    kept_in = np.arange(module.in_channels) if inputs is None else inputs
    kept_out = np.arange(module.out_channels) if outputs is None else outputs
    position = {int(channel): place for place, channel in enumerate(kept_in)}
    position[-1] = -1
    duplicate = copy.copy(module)
    duplicate.in_channels = len(kept_in)
    duplicate.source = tuple(position.get(module.source[channel], -1) for channel in kept_out)
    return duplicate


def _duplicate(module: nn.Module) -> nn.Module:
    duplicate = copy.copy(module)
    duplicate._parameters = dict(module._parameters)
    duplicate._buffers = dict(module._buffers)
    return duplicate
