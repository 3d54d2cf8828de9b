"""Channel groups: coupled as the mathematics of the network says, checked by three oracles."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch_pruning
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.errors import NetworkError
from prunetune.models import NETWORKS, build_network, slim, trace_channel_groups
from torch import Tensor, nn

from .networks import (
    OWN_NETWORKS,
    images_for,
    masked_outputs,
    random_kept,
    randomise,
    relative_error,
    same_weights,
    traced,
    traced_own,
    weights_of,
)

_TOLERANCE = 1e-5


def _slim_equals_masked(network: nn.Module, groups: object, seed: int) -> None:
    kept = random_kept(groups, seed)  # type: ignore[arg-type]
    images = images_for(groups, seed=seed)  # type: ignore[arg-type]
    with torch.no_grad():
        found = slim(network, groups, kept)(images)  # type: ignore[arg-type]
    expected = masked_outputs(network, groups, kept, images)  # type: ignore[arg-type]
    assert relative_error(found, expected) <= _TOLERANCE


@pytest.mark.parametrize("name", sorted(NETWORKS))
@settings(deadline=None, max_examples=3)
@given(seed=st.integers(0, 2**31))
def test_slim_network_equals_masked_network(name: str, seed: int) -> None:
    _slim_equals_masked(*traced(name), seed)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_slim_network_equals_masked_network_in_the_inner_scope(name: str) -> None:
    network, groups = traced(name)
    streams = {"conv1", "layer2.0.conv2", "layer3.0.conv2", "layer4.0.conv2"}
    if name.startswith("resnet"):  # tracing twice is slow, and the definition is known
        inner = [group for group in groups if group.name not in streams]
    else:
        inner = list(trace_channel_groups(network, images_for(groups, 1), "inner"))
    chosen = random_kept(groups, 7)
    kept = [
        units
        for group, units in zip(groups, chosen, strict=True)
        if group.name in {each.name for each in inner}
    ]
    images = images_for(groups)
    with torch.no_grad():
        found = slim(network, inner, kept)(images)
    assert relative_error(found, masked_outputs(network, inner, kept, images)) <= _TOLERANCE


@pytest.mark.parametrize(
    "name",
    [
        "resnext50_32x4d",
        pytest.param("densenet121", marks=pytest.mark.slow),
        "mobilenet_v3_small",
    ],
)
def test_torchvision_networks_slim_equals_masked(name: str) -> None:
    _slim_equals_masked(*traced(f"torchvision:{name}", "all", (3, 32, 32)), 5)


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_awkward_networks_slim_equals_masked(name: str, seed: int) -> None:
    _slim_equals_masked(*traced_own(name), seed)


@pytest.mark.parametrize("name", ["resnet20", "vgg11bn", "mobilenetv2"])
def test_torch_pruning_removes_the_same_channels(name: str) -> None:
    network, groups = traced(name)
    images = images_for(groups)
    streams = {"conv1", "layer2.0.conv2", "layer3.0.conv2"} if name == "resnet20" else set()
    kept = random_kept(groups, 3)
    # Torch-Pruning cannot slim a shortcut that pads with zeros.
    kept = [
        np.arange(group.size) if group.name in streams else units
        for group, units in zip(groups, kept, strict=True)
    ]
    theirs = copy.deepcopy(network).requires_grad_(True)
    for group, units in zip(groups, kept, strict=True):
        gone = [int(unit) for unit in np.setdiff1d(np.arange(group.size), units)]
        if not gone:
            continue
        graph = torch_pruning.DependencyGraph().build_dependency(theirs, images[:1])
        layer = theirs.get_submodule(group.name)
        graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, gone).prune()
    with torch.no_grad():
        assert relative_error(slim(network, groups, kept)(images), theirs(images)) <= _TOLERANCE
    ours = {n: tuple(v.shape) for n, v in slim(network, groups, kept).state_dict().items()}
    assert ours == {n: tuple(v.shape) for n, v in theirs.state_dict().items()}


def test_groups_of_a_cifar_resnet_are_those_of_its_definition() -> None:
    network = build_network("resnet20", 10, (3, 16, 16))
    inner = trace_channel_groups(network, torch.rand(1, 3, 16, 16), "inner")
    stages = [(f"layer{stage}", 16 * 2 ** (stage - 1)) for stage in (1, 2, 3)]
    assert [(group.name, group.size) for group in inner] == [
        (f"{stage}.{block}.conv1", size) for stage, size in stages for block in range(3)
    ]
    assert set(inner.left_alone) == {"conv1", "layer2.0.conv2", "layer3.0.conv2"}
    _, every = traced("resnet20")
    assert {group.name: group.size for group in every} == {
        **{group.name: group.size for group in inner},
        **{"conv1": 16, "layer2.0.conv2": 32, "layer3.0.conv2": 64},
    }


def test_members_come_in_the_order_of_execution() -> None:
    _, groups = traced_own("MobileLike")
    expand = next(group for group in groups if group.name == "expand")
    layers = [(member.layer, member.axis) for member in expand.members]
    assert layers == [
        ("expand", "out"),
        ("norm1", "out"),
        ("depthwise", "out"),
        ("norm2", "out"),
        ("project", "in"),
    ]


def test_a_unit_is_one_channel_of_every_convolution_group() -> None:
    _, groups = traced_own("GroupedNet")
    sizes = {group.name: group.size for group in groups}
    assert sizes == {"stem": 16 // 4, "grouped": 24 // 4, "last": 8}
    stem = next(group for group in groups if group.name == "stem")
    assert [sorted(channels) for channels in stem.members[0].channels.tolist()] == [
        [unit, unit + 4, unit + 8, unit + 12] for unit in range(4)
    ]


def test_flattened_maps_are_one_unit_per_channel() -> None:
    _, groups = traced_own("MobileLike")
    last = next(group for group in groups if group.name == "last")
    reader = next(last.readers())
    assert last.size == 4
    assert np.array_equal(reader.channels, np.arange(64).reshape(4, 16))


def test_a_layer_used_twice_is_left_alone() -> None:
    _, groups = traced_own("SharedLayers")
    assert [group.name for group in groups] == ["stem", "first"]
    assert "more than once" in groups.left_alone["second"]


def test_tracing_changes_nothing() -> None:
    network = randomise(build_network("digits-net", 10, (1, 8, 8)))
    before = weights_of(network)
    grads = [parameter.requires_grad for parameter in network.parameters()]
    trace_channel_groups(network, torch.rand(1, 1, 8, 8), "all")
    assert same_weights(network, before)
    assert grads == [parameter.requires_grad for parameter in network.parameters()]
    assert not any(module._forward_hooks for module in network.modules())


def test_tracing_does_not_depend_on_the_weights() -> None:
    fresh = build_network("mobilenetv2", 10, (3, 16, 16))
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    _, groups = traced("mobilenetv2")
    found = trace_channel_groups(fresh, torch.zeros(1, 3, 16, 16), "all")
    assert [group.name for group in found] == [group.name for group in groups]


class _OneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


def test_networks_without_anything_to_prune_are_refused_in_one_sentence() -> None:
    with pytest.raises(NetworkError, match="no channels that can be removed") as caught:
        trace_channel_groups(_OneLayer().eval(), torch.rand(1, 1, 8, 8))
    assert "\n" not in str(caught.value)
    with pytest.raises(NetworkError, match=r"does not accept images of shape \(3, 8, 8\)"):
        trace_channel_groups(_OneLayer().eval(), torch.rand(1, 3, 8, 8))
