"""Block repair: nearer to the dense network than full repair, and nobody else is touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prunetune.models import ChannelGroups, slim, trace_channel_groups
from prunetune.models.batchnorm import recalibrate_batchnorm
from prunetune.models.calls import norms_after
from prunetune.models.reductions.channels import KeptChannels, kept_channels
from prunetune.models.repair import QuickRepair, gather_moments
from prunetune.models.repair.block import BlockRepair, BlockSchedule
from prunetune.models.repair.full import FULL, FullRepair
from torch import Tensor, nn

from .networks import (
    OWN_NETWORKS,
    Kept,
    SharedLayers,
    half_kept,
    images_for,
    randomise,
    relative_error,
    same_weights,
    traced_own,
    weights_of,
)

_LONGER = BlockSchedule(epochs=40, batch_size=16)


def _fully_repaired(
    network: nn.Module, groups: ChannelGroups, images: Tensor, kept: Kept
) -> tuple[nn.Module, KeptChannels]:
    readers = {member.layer for group in groups for member in group.readers()}
    weighted = [name for name in readers if hasattr(network.get_submodule(name), "weight")]
    moments = gather_moments(network, weighted, images)
    channels = kept_channels(network, groups, kept)
    slimmed = slim(network, groups, kept)
    QuickRepair(network, moments, norms_after(network, images[:2])).apply(slimmed, channels)
    return FullRepair(network, images, moments, FULL).apply(slimmed, channels), channels


def _network(name: str, scope: str) -> tuple[nn.Module, ChannelGroups, Tensor]:
    torch.manual_seed(0)
    network = OWN_NETWORKS[name]()
    images = torch.randn(256, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    recalibrate_batchnorm(randomise(network), [images])
    return network, trace_channel_groups(network, images[:1], scope), images


def _errors(name: str, scope: str) -> tuple[float, float]:
    """Squared errors on fresh images, after full and after block repair."""
    network, groups, images = _network(name, scope)
    fresh = torch.randn(128, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    full, channels = _fully_repaired(network, groups, images, half_kept(groups))
    block = BlockRepair(network, images, _LONGER).apply(full, channels)
    with torch.no_grad():
        wanted = network(fresh)
        return (
            float((full(fresh) - wanted).square().mean()),
            float((block(fresh) - wanted).square().mean()),
        )


@pytest.mark.parametrize("name", ["ChannelsLast", "DenseNetLike", "GroupedNet", "SmallNet"])
def test_outputs_come_nearer_to_the_dense_networks_than_after_full_repair(name: str) -> None:
    full, block = _errors(name, "all")
    assert block < full


@pytest.mark.parametrize("scope", ["inner", "all"])
@pytest.mark.parametrize("name", ["MobileLike", "PreActivation", "SharedLayers"])
def test_where_there_is_little_to_gain_little_is_lost(name: str, scope: str) -> None:
    """With 224 random images, blocks get better on their own and may get worse in a row."""
    full, block = _errors(name, scope)
    assert block < 1.15 * full


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_with_everything_kept_the_network_is_unchanged(name: str) -> None:
    network, groups = traced_own(name)
    images = images_for(groups, 64)
    kept = [np.arange(size) for size in groups.sizes]
    full, channels = _fully_repaired(network, groups, images, kept)
    repaired = BlockRepair(network, images).apply(full, channels)
    with torch.no_grad():
        assert relative_error(repaired(images), network(images)) <= 1e-3


def test_no_other_network_is_touched_and_a_seed_gives_the_same_again() -> None:
    network, groups, images = _network("SmallNet", "all")
    full, channels = _fully_repaired(network, groups, images, half_kept(groups))
    dense_before, full_before = weights_of(network), weights_of(full)
    with torch.inference_mode():
        first = BlockRepair(network, images, seed=3).apply(full, channels)
    again = BlockRepair(network, images, seed=3).apply(full, channels)
    assert same_weights(network, dense_before)
    assert same_weights(full, full_before)
    assert same_weights(first, weights_of(again))
    assert not same_weights(first, full_before)
    assert not first.training
    assert not any(parameter.requires_grad for parameter in first.parameters())
    pointers = {value.data_ptr() for value in full.state_dict().values()}
    assert not pointers & {value.data_ptr() for value in first.state_dict().values()}


def test_statistics_of_batchnorm_stay() -> None:
    network, groups, images = _network("SmallNet", "inner")
    full, channels = _fully_repaired(network, groups, images, half_kept(groups))
    repaired = BlockRepair(network, images, _LONGER).apply(full, channels)
    before = full.state_dict()
    for name, value in repaired.state_dict().items():
        if "running" in name:
            assert torch.equal(value, before[name])


def test_a_block_that_would_get_worse_keeps_its_weights() -> None:
    network, groups, images = _network("SmallNet", "inner")
    full, channels = _fully_repaired(network, groups, images, half_kept(groups))
    hurried = BlockSchedule(epochs=2, learning_rate=1e3)
    repaired = BlockRepair(network, images, hurried).apply(full, channels)
    assert same_weights(repaired, weights_of(full))


def test_layers_that_several_blocks_call_are_left_alone() -> None:
    network, groups, images = _network("SharedLayers", "inner")
    assert isinstance(network, SharedLayers)
    full, channels = _fully_repaired(network, groups, images, half_kept(groups))
    repaired = BlockRepair(network, images, _LONGER).apply(full, channels)
    assert torch.equal(repaired.shared.weight, full.shared.weight)
    assert not torch.equal(repaired.second.weight, full.second.weight)


def test_where_nothing_was_slimmed_nothing_is_trained() -> None:
    network, _, images = _network("SmallNet", "inner")
    repaired = BlockRepair(network, images).apply(network, {})
    assert same_weights(repaired, weights_of(network))
