"""Units: the smallest sets of coupled channels that can be removed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from .groups import Member
from .layers import adapter_of

__all__ = ["gather_units"]


def gather_units(members: Sequence[Member], network: nn.Module) -> tuple[Member, ...] | str:
    """Join coupled channels that layers can only lose together.

    A grouped convolution must lose one channel of each of its groups, and a GroupNorm whole groups.

    Args:
        members: Of one channel group, with as many units as the group has coupled channels.
        network: The dense network.

    Returns:
        The members with the units that remain, or the reason why there are none.
    """
    size = len(members[0].channels)
    folds: set[int] = set()
    together = np.arange(size)
    for member in members:
        layer = network.get_submodule(member.layer)
        adapter = adapter_of(layer)
        assert adapter is not None
        facts, norm_group = adapter.facts(layer), adapter.inseparable(layer)
        if facts is not None and facts.groups > 1:
            written, read = adapter.channels(layer)
            whole = size == (written if member.axis == "out" else read)
            if not whole or not np.array_equal(member.channels[:, 0], np.arange(size)):
                return f"its channels are reordered before the grouped convolution {member.layer}"
            folds.add(facts.groups)
        if norm_group > 1:
            norm_groups = member.channels // norm_group
            if (np.unique(norm_groups, return_counts=True)[1] != norm_group).any():
                return f"{member.layer} normalises its channels together with others"
            _join(together, norm_groups)
    if len(folds) > 1:
        return "it runs through grouped convolutions of different group counts"
    fold = folds.pop() if folds else 1
    counts = np.unique(together, return_counts=True)[1]
    if fold > 1 and len(counts) < size:
        return "it runs through grouped convolutions and normalisation groups"
    if len(set(counts.tolist())) > 1:
        return "it runs through normalisation groups of uneven sizes"
    if size // fold < 2 or len(counts) < 2:
        return "a single unit of channels cannot be made narrower"
    if fold > 1:
        units = np.arange(size).reshape(fold, size // fold).T
    else:
        units = np.argsort(together, kind="stable").reshape(len(counts), -1)
    return tuple(
        Member(member.layer, member.axis, member.channels[units].reshape(len(units), -1))
        for member in members
    )


def _join(together: NDArray[np.int64], norm_groups: NDArray[np.int64]) -> None:
    """Give the coupled channels that share a norm group one label, in place.

    Args:
        together: Label of each coupled channel, int64 [units].
        norm_groups: Norm groups that each of them reaches, int64 [units, channels per unit].
    """
    for group in np.unique(norm_groups):
        labels = together[(norm_groups == group).any(axis=1)]
        together[np.isin(together, labels)] = labels.min()
