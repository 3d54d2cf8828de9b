"""Artifacts of format 1, which say units of groups only: the groups are traced anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...errors import NetworkError
from ..reductions.channels import KeptChannels, kept_channels
from .description import Claims

__all__ = ["traced_channels"]


def traced_channels(network: nn.Module, claims: Claims, folder: Path) -> KeptChannels:
    """The channels that layers keep, by the groups that are found in the dense network.

    Which groups these are may depend on the network's weights, so some artifacts of this format
    cannot be read.

    Args:
        network: The dense network, with any weights.
        claims: The description.
        folder: The artifact, for messages.

    Raises:
        NetworkError: If the groups that are found are not those that were pruned.
    """
    # Torch-Pruning takes a second to import, and later formats do without.
    from ..coupling import trace_channel_groups

    groups = trace_channel_groups(
        network, torch.zeros(1, *claims.network.shape), claims.network.groups
    )
    sizes = {group.name: group.size for group in groups}
    for name, units in claims.kept.items():
        if name not in sizes or units[-1] >= sizes[name]:
            break
    else:
        if claims.kept.keys() == sizes.keys():
            kept = [np.array(claims.kept[group.name], dtype=np.int64) for group in groups]
            return kept_channels(network, groups, kept)
    raise NetworkError(
        f"The artifact {folder} has format 1, and its channel groups are not found again in the "
        "network; give the dense network that was pruned (network=), or write the artifact again "
        "with `prunetune finetune RUN`."
    )
