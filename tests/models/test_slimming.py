"""Slimming: what is copied, what is shared, and what a slim shortcut computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.models import slim
from prunetune.models.reductions.channels import ignore_removed, kept_channels
from prunetune.models.zoo import PadShortcut
from torch import nn

from .networks import (
    OWN_NETWORKS,
    images_for,
    random_kept,
    relative_error,
    same_weights,
    traced,
    traced_own,
    weights_of,
)


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_with_everything_kept_outputs_are_those_of_the_dense_network(name: str) -> None:
    network, groups = traced_own(name)
    kept = [np.arange(size) for size in groups.sizes]
    images = images_for(groups)
    with torch.no_grad():
        assert torch.equal(slim(network, groups, kept)(images), network(images))


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_training_a_slim_network_does_not_touch_the_dense_one(name: str) -> None:
    network, groups = traced_own(name)
    before = weights_of(network)
    slimmed = slim(network, groups, random_kept(groups, 0))
    slimmed.train()
    slimmed(images_for(groups))
    for module in slimmed.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            with torch.no_grad():
                module.weight.zero_()
                module.bias.zero_()
    slimmed.eval()
    assert same_weights(network, before)
    assert not network.training


def test_layers_that_no_group_runs_through_are_shared() -> None:
    network, groups = traced_own("SharedLayers")
    slimmed = slim(network, groups, random_kept(groups, 0))
    assert slimmed.get_submodule("shared") is network.get_submodule("shared")
    assert slimmed.get_submodule("linear") is network.get_submodule("linear")
    assert slimmed.get_submodule("norm1") is not network.get_submodule("norm1")
    assert type(slimmed) is type(network)
    assert [n for n, _ in slimmed.named_modules()] == [n for n, _ in network.named_modules()]


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_ignoring_removed_channels_is_the_same_network(seed: int) -> None:
    for name in ("SmallNet", "GroupedNet", "MobileLike"):
        network, groups = traced_own(name)
        kept, images = random_kept(groups, seed), images_for(groups)
        with torch.no_grad():
            ignorant = ignore_removed(network, groups, kept)(images)
            assert relative_error(slim(network, groups, kept)(images), ignorant) <= 1e-5


def test_sizes_written_on_the_layers_are_those_of_their_weights() -> None:
    network, groups = traced("mobilenetv2")
    slimmed = slim(network, groups, random_kept(groups, 4))
    for module in slimmed.modules():
        if isinstance(module, nn.Conv2d):
            expected = (module.out_channels, module.in_channels // module.groups)
            assert module.weight.shape[:2] == expected
        elif isinstance(module, nn.BatchNorm2d):
            assert module.num_features == len(module.running_mean) == len(module.weight)
        elif isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features)


def test_channels_of_concatenated_groups_are_counted_once() -> None:
    network, groups = traced_own("DenseNetLike")
    names = [group.name for group in groups]
    kept = [np.arange(size) for size in groups.sizes]
    kept[names.index("stem")] = np.array([1, 5])
    kept[names.index("conv1")] = np.array([0, 3])
    channels = kept_channels(network, groups, kept)
    assert channels["norm2"][0] is not None
    assert channels["norm2"][0].tolist() == [1, 5, 8, 11]
    assert channels["conv2"][1] is not None
    assert channels["conv2"][1].tolist() == [1, 5, 8, 11]
    outputs, inputs = channels["stem"]
    assert outputs is not None
    assert outputs.tolist() == [1, 5]
    assert inputs is None


def test_a_slim_shortcut_copies_what_is_left_on_both_sides() -> None:
    network, groups = traced("resnet20")
    kept = [np.arange(size) for size in groups.sizes]
    names = [group.name for group in groups]
    kept[names.index("conv1")] = np.array([0, 4, 15])
    kept[names.index("layer2.0.conv2")] = np.array([0, 8, 9, 12, 31])
    shortcut = slim(network, groups, kept).get_submodule("layer2.0.shortcut")
    assert isinstance(shortcut, PadShortcut)
    # Dense: output 8 + i copies input i. Inputs 0, 4, 15 are now at places 0, 1, 2.
    assert shortcut.in_channels == 3
    assert shortcut.source == (-1, 0, -1, 1, -1)
    dense = network.get_submodule("layer2.0.shortcut")
    assert isinstance(dense, PadShortcut)
    assert dense.source[8:24] == tuple(range(16))
