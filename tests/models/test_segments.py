"""Cutting a network: segments one after the other are the network, dense or slim."""

from __future__ import annotations

import pytest
import torch
from prunetune.models import build_network, slim
from prunetune.models.repair.segments import cut_network
from torch import Tensor, nn

from .networks import (
    OWN_NETWORKS,
    MobileLike,
    SharedLayers,
    SmallNet,
    images_for,
    random_kept,
    relative_error,
    traced,
    traced_own,
)


@torch.no_grad()
def _through_segments(dense: nn.Module, network: nn.Module, images: Tensor) -> Tensor:
    value = images
    for segment in cut_network(dense):
        value = segment.of(network)(value.clone())
    return value


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_segments_in_a_row_are_the_network(name: str) -> None:
    network, groups = traced_own(name)
    images = images_for(groups)
    assert torch.equal(_through_segments(network, network, images), network(images))
    slimmed = slim(network, groups, random_kept(groups, 0))
    assert relative_error(_through_segments(network, slimmed, images), slimmed(images)) <= 1e-6


@pytest.mark.parametrize("name", ["resnet20", "vgg16bn", "mobilenetv2"])
def test_segments_in_a_row_are_the_zoos_networks(name: str) -> None:
    network, groups = traced(name, shape=(3, 32, 32))
    images = images_for(groups)
    assert torch.equal(_through_segments(network, network, images), network(images))
    assert len(cut_network(network)) >= 7


@pytest.mark.parametrize("style", ["plain", "swapped", "in place", "discarded"])
def test_a_segment_is_a_block_however_its_sum_is_written(style: str) -> None:
    segments = cut_network(SmallNet(style))
    assert [segment.layers for segment in segments] == [
        ("stem", "blocks.0.conv1", "blocks.0.conv2"),
        ("blocks.1.conv1", "blocks.1.conv2"),
        ("blocks.2.conv1", "blocks.2.conv2"),
        ("linear",),
    ]


def test_a_resnets_segments_are_its_blocks_with_the_rectifier_behind_the_sum() -> None:
    segments = cut_network(build_network("resnet20", 10, (3, 32, 32)))
    assert len(segments) == 10
    assert segments[4].layers == ("layer2.1.conv1", "layer2.1.conv2")
    assert segments[4].output[:3] == ("layer2.1.relu2", "layer2.1.bn2", "layer2.1.conv2")


def test_layers_that_are_called_twice_belong_to_no_segment_alone() -> None:
    segments = cut_network(SharedLayers())
    assert [segment.layers for segment in segments] == [
        ("stem", "first"),
        ("second", "shared"),
        ("shared", "linear"),
    ]
    assert not any("shared" in segment.own for segment in segments)
    assert "norm1" in segments[1].own and "norm2" in segments[2].own


class _Undecided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """What depends on data cannot be traced."""
        return self.linear(x) if x.sum() > 0 else x


class _TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add two inputs."""
        return self.linear(x) + y


class _TwoOutputs(MobileLike):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Two outputs."""
        return super().forward(x), x


@pytest.mark.parametrize("network", [_Undecided(), _TwoInputs(), _TwoOutputs()])
def test_what_cannot_be_cut_has_no_segments(network: nn.Module) -> None:
    assert cut_network(network) == ()


class _FreeParameter(nn.Module):
    """A parameter that no module owns, read in two segments."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 1.5))
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Four layers, scaled twice."""
        x = (self.layers[1](self.layers[0](x)) * self.scale).relu()
        return self.layers[3](self.layers[2](x)) * self.scale


def test_parameters_outside_of_modules_are_read_where_they_are_needed() -> None:
    network = _FreeParameter()
    images = torch.randn(5, 4)
    assert len(cut_network(network)) == 2
    assert torch.equal(_through_segments(network, network, images), network(images))
