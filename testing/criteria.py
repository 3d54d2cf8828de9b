"""The conformance check of criteria."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models.calls import norms_after
from ..models.coupling import trace_channel_groups
from ..models.criteria import Criterion, Evidence
from ..models.groups import ChannelGroup
from ..models.repair.gathering import gather_moments
from .expecting import expect

__all__ = ["check_criterion"]


def check_criterion(
    criterion: Criterion, network: nn.Module, images: Tensor, seed: int = 0
) -> None:
    """Make sure that a criterion can be trusted to rank channels.

    It must be a ``Criterion`` with a name; rank every channel group of the network, giving each
    unit once; rank it alike when it is asked again; and leave the network as it is.

    Args:
        criterion: The criterion, as an object.
        network: Any network that has channel groups, in evaluation mode.
        images: Calibration images, float32 [N, C, H, W].
        seed: For criteria that draw at random.

    Raises:
        AssertionError: With one sentence, at the first thing that is wrong.
        NetworkError: If the network has no channels that can be removed.
    """
    expect(
        isinstance(criterion, Criterion),
        f"{criterion!r} is not an object of a subclass of prunetune.models.Criterion.",
    )
    name = getattr(criterion, "name", None)
    expect(isinstance(name, str) and bool(name), f"{type(criterion).__name__} has no name.")
    groups = trace_channel_groups(network, images[:1], "all")
    readers = sorted(
        {
            member.layer
            for group in groups
            for member in group.readers()
            if hasattr(network.get_submodule(member.layer), "weight")
        }
    )
    moments = gather_moments(network, readers, images)
    evidence = Evidence(network, images, moments, norms_after(network, images[:1]), seed)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    orders = [_ranked(criterion, group, evidence) for group in groups]
    for group, order in zip(groups, orders, strict=True):
        expect(
            np.array_equal(_ranked(criterion, group, evidence), order),
            f"{name!r} ranks {group.name} in another order when it is asked again; draw at random "
            "from the seed of the evidence only.",
        )
    after = network.state_dict()
    expect(
        all(torch.equal(after[key], value) for key, value in before.items())
        and not network.training,
        f"{name!r} changes the network that it looks at.",
    )


def _ranked(criterion: Criterion, group: ChannelGroup, evidence: Evidence) -> NDArray[np.int64]:
    order = np.asarray(criterion.rank(group, evidence))
    expect(
        order.dtype == np.int64 and sorted(order.tolist()) == list(range(group.size)),
        f"{criterion.name!r} must rank each of the {group.size} units of {group.name} once, as "
        f"int64 [{group.size}], not {order!r}.",
    )
    return order
