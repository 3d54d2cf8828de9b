"""Removing channels: the slim network, without copying what does not change, and its oracle."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..._compat import is_batchnorm
from ..copying import shallow_copy
from ..groups import Axis, ChannelGroup
from ..layers import LayerAdapter, adapter_of, own_copy
from ..space import Candidate, Decision
from .reduction import Reduction

__all__ = ["ChannelsReduction", "ignore_removed", "kept_channels", "slim", "slim_layers"]

KeptUnits = Sequence[NDArray[np.int64]]
"""Per group, the units that stay: ascending int64 [w]."""

KeptChannels = dict[str, tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]]
"""Per layer, its output and input channels that stay; None where no group decides them."""


class ChannelsReduction(Reduction):
    """Removes channels: one decision per channel group, its width.

    Args:
        groups: The channel groups of a network.
        orders: Per group, its units, the one to keep longest first; int64 [units].
        rescalings: Per group, what readers multiply the units that stay by, as
            :class:`prunetune.models.criteria.Ranking` has it; None for ones.
    """

    kind: ClassVar[str] = "channels"

    def __init__(
        self,
        groups: Sequence[ChannelGroup],
        orders: Sequence[NDArray[np.int64]],
        rescalings: Sequence[NDArray[np.float64] | None] | None = None,
    ) -> None:
        self._groups = tuple(groups)
        self._orders = tuple(orders)
        self._rescalings = tuple(rescalings) if rescalings is not None else (None,) * len(orders)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """One per group, of its name and size; the last unit always stays."""
        return tuple(Decision(group.name, self.kind, group.size) for group in self._groups)

    def kept_units(self, values: Candidate) -> KeptUnits:
        """Of each group the first units of its ranking, as many as the value says.

        Args:
            values: Units kept per group, each in 1..size.

        Returns:
            Per group, ascending int64 [value].
        """
        return [np.sort(order[:width]) for width, order in zip(values, self._orders, strict=True)]

    def apply(self, network: nn.Module, values: Candidate) -> nn.Module:
        """See :func:`slim`; readers then multiply what stays as the criterion says."""
        slimmed = slim(network, self._groups, self.kept_units(values))
        if any(self._rescales(values)):
            self._rescale(slimmed, values, self.kept_channels(network, values))
        return slimmed

    def oracle(self, network: nn.Module, values: Candidate) -> nn.Module:
        """See :func:`ignore_removed`; readers then multiply what stays as the criterion says."""
        ignorant = ignore_removed(network, self._groups, self.kept_units(values))
        self._rescale(ignorant, values, {})
        return ignorant

    def kept_channels(self, network: nn.Module, values: Candidate) -> KeptChannels:
        """See the function :func:`kept_channels`."""
        return kept_channels(network, self._groups, self.kept_units(values))

    def _rescales(self, values: Candidate) -> list[bool]:
        """Per group, whether readers multiply what stays by anything but ones."""
        return [
            factors is not None and width < group.size
            for group, width, factors in zip(self._groups, values, self._rescalings, strict=True)
        ]

    def _rescale(self, network: nn.Module, values: Candidate, kept: KeptChannels) -> None:
        """Let the readers of a network of our own multiply what stays, in place.

        Args:
            network: Slim, or of full size.
            values: Units kept per group.
            kept: What a slim network's layers kept; empty for one of full size.
        """
        for layer, channels, factors in self._factors(values):
            module = network.get_submodule(layer)
            adapter = _adapter(module)
            if adapter.multiplies:
                inputs = kept[layer][1] if layer in kept else None
                places = channels if inputs is None else np.searchsorted(inputs, channels)
                adapter.scale_inputs(module, places, factors)

    def _factors(
        self, values: Candidate
    ) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float64]]]:
        """Readers, input channels of theirs that stay, int64 [n], and their factors [n]."""
        for index, rescales in enumerate(self._rescales(values)):
            factors, width = self._rescalings[index], values[index]
            if not rescales or factors is None:
                continue
            units = self._orders[index][:width]
            for member in self._groups[index].readers():
                channels = member.channels[units]
                of_unit = np.repeat(factors[width - 1, :width], channels.shape[1])
                yield member.layer, channels.reshape(-1), of_unit


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
    result: KeptChannels = {}
    for layer, (outputs, inputs) in _removed_channels(groups, kept).items():
        module = network.get_submodule(layer)
        written, read = _adapter(module).channels(module)
        result[layer] = (_all_but(outputs, written), _all_but(inputs, read))
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
    return slim_layers(network, kept_channels(network, groups, kept))


def slim_layers(network: nn.Module, channels: KeptChannels) -> nn.Module:
    """The network whose layers keep these channels.

    Args:
        network: The dense network; it is not changed.
        channels: Per layer, ascending int64 indices of the output and the input channels that
            stay; None where all of them stay.

    Returns:
        A network of the same class and module names, as of :func:`slim`.
    """

    def replace(name: str, module: nn.Module) -> nn.Module | None:
        if name in channels:
            slimmed: nn.Module = _adapter(module).slim(module, *channels[name])
            return slimmed
        return own_copy(module) if is_batchnorm(module) else None

    return shallow_copy(network, replace)


def ignore_removed(
    network: nn.Module, groups: Iterable[ChannelGroup], kept: KeptUnits
) -> nn.Module:
    """A full-size copy whose layers ignore removed channels where they read or average them.

    Args and return value as for :func:`slim`; outputs are equal to those of the slim network. This
    is the slow oracle that the coupling is checked against.
    """
    removed = _removed_channels(groups, kept)

    def replace(name: str, module: nn.Module) -> nn.Module | None:
        ignorant: nn.Module | None = None
        if name in removed:
            ignorant = _adapter(module).ignore(module, *removed[name])
        return ignorant

    return shallow_copy(copy.deepcopy(network), replace)


def _removed_channels(groups: Iterable[ChannelGroup], kept: KeptUnits) -> KeptChannels:
    """The output and input channels that every affected layer loses; None where it loses none."""
    removed: dict[str, dict[Axis, list[NDArray[np.int64]]]] = {}
    for group, units in zip(groups, kept, strict=True):
        gone = np.setdiff1d(np.arange(group.size), units)
        for member in group.members:
            sides = removed.setdefault(member.layer, {})
            sides.setdefault(member.axis, []).append(member.kept(gone))
    return {
        layer: (_joined(sides.get("out")), _joined(sides.get("in")))
        for layer, sides in removed.items()
    }


def _joined(channels: list[NDArray[np.int64]] | None) -> NDArray[np.int64] | None:
    return None if channels is None else np.sort(np.concatenate(channels))


def _all_but(removed: NDArray[np.int64] | None, size: int) -> NDArray[np.int64] | None:
    return None if removed is None else np.setdiff1d(np.arange(size), removed)


def _adapter(module: nn.Module) -> LayerAdapter[Any]:
    adapter = adapter_of(module)
    # Channel groups run through layers with adapters only.
    assert adapter is not None
    return adapter
