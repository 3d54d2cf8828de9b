"""Cost tables: exact for every candidate, by PyTorch's own counter."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.models import NETWORKS, ChannelGroups, Structure, slim, trace_channel_groups
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .networks import (
    OWN_NETWORKS,
    random_kept,
    randomise,
    traced,
    traced_own,
    widths_of,
)


def _counted(network: nn.Module, structure: Structure) -> tuple[int, int]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *structure.input_shape))
    return counter.get_total_flops(), sum(each.numel() for each in network.parameters())


def _tables_are_exact(network: nn.Module, groups: ChannelGroups, seed: int) -> None:
    structure = groups.structure
    assert (structure.dense_flops, structure.dense_params) == _counted(network, structure)
    kept = random_kept(groups, seed)
    widths = widths_of(kept)
    found = (int(structure.flops(widths)), int(structure.params(widths)))
    assert found == _counted(slim(network, groups, kept), structure)


@pytest.mark.parametrize("name", sorted(NETWORKS))
@settings(deadline=None, max_examples=3)
@given(seed=st.integers(0, 2**31))
def test_tables_equal_pytorchs_counter(name: str, seed: int) -> None:
    _tables_are_exact(*traced(name), seed)


@pytest.mark.parametrize("name", ["resnext50_32x4d", "densenet121", "mobilenet_v3_small"])
def test_tables_of_torchvision_networks(name: str) -> None:
    _tables_are_exact(*traced(f"torchvision:{name}", "all", (3, 32, 32)), 2)


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_tables_of_awkward_networks(name: str, seed: int) -> None:
    _tables_are_exact(*traced_own(name), seed)


class _Unlisted(nn.Module):
    """Attention and a transposed convolution: FLOPs that no table of ours lists."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.down = nn.Conv2d(8, 12, 4, 4)
        self.narrow = nn.Conv2d(12, 8, 1)
        self.linear = nn.Linear(8, 10)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(self.conv(self.stem(x).relu()))
        x = self.narrow(self.down(x).relu()).flatten(2)
        x = x @ (x.mT @ x).softmax(dim=-1)
        return self.linear(x.mean(dim=2)) * self.scale


def test_operations_that_are_not_listed_are_counted_as_constant() -> None:
    network = randomise(_Unlisted())
    groups = trace_channel_groups(network, torch.rand(1, 3, 16, 16), "all")
    assert [group.name for group in groups] == ["stem", "down"]
    assert "bmm" in groups.left_alone["narrow"]
    _tables_are_exact(network, groups, 0)


@pytest.mark.parametrize("name", ["mobilenetv2", "resnet20"])
def test_description_survives_json(name: str) -> None:
    structure = traced(name)[1].structure
    again = Structure.from_dict(json.loads(json.dumps(structure.to_dict())))
    assert again == structure
    half = np.maximum(1, structure.sizes // 2)
    assert np.array_equal(again.layer_flops(half), structure.layer_flops(half))
    assert again.params(half) == structure.params(half)


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_many_candidates_at_once_equal_one_by_one(name: str) -> None:
    structure = traced_own(name)[1].structure
    draw = np.random.default_rng(0)
    widths = draw.integers(1, structure.sizes + 1, size=(4, 5, len(structure.sizes)))
    for table in (structure.flops, structure.params, structure.layer_flops, structure.layer_params):
        together = table(widths)
        assert together.dtype == np.int64
        for index in np.ndindex(4, 5):
            assert np.array_equal(together[index], table(tuple(widths[index])))


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_a_layers_cost_is_known_when_it_is_decided(name: str) -> None:
    structure = traced_own(name)[1].structure
    dense = structure.sizes
    for layer, step in enumerate(structure.decided_at()):
        for group in range(len(dense)):
            changed = dense.copy()
            changed[group] = 1
            same = structure.layer_params(changed)[layer] == structure.layer_params(dense)[layer]
            assert same or group <= step
    assert (structure.layer_flops(dense) >= 0).all()


def test_layers_describe_a_convolution_as_it_is() -> None:
    _, groups = traced_own("GroupedNet")
    structure = groups.structure
    grouped = next(layer for layer in structure.layers if layer.name == "grouped")
    assert (grouped.kind, grouped.groups, grouped.kernel) == ("conv", 4, (3, 3))
    assert (grouped.input_size, grouped.output_size) == ((16, 16), (16, 16))
    assert (grouped.inputs, grouped.outputs) == (((0, 4),), ((1, 4),))
    # 24 outputs, each reads 16 / 4 channels at 9 positions of 16x16 places, 2 FLOPs each.
    names = [layer.name for layer in structure.layers]
    flops = dict(zip(names, structure.layer_flops(structure.sizes), strict=True))
    assert flops["grouped"] == 2 * 24 * 4 * 9 * 256
