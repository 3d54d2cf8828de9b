"""Patches: what a layer's weights are multiplied with, for layers of every kind."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.models.calls import map_size
from prunetune.models.layers import Sites, sample_sites
from prunetune.models.repair.patches import channels_at, layer_patches
from torch import Tensor, nn


def _all_sites(layer: nn.Module, outputs: Tensor) -> Sites:
    return sample_sites(len(outputs), map_size(layer, outputs), 10**9, torch.Generator())


@settings(deadline=None, max_examples=40)
@given(
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 6]),
    padding=st.sampled_from(["zeros", "reflect", "circular"]),
    bias=st.booleans(),
)
def test_patches_times_weights_are_the_convolution(
    kernel: tuple[int, int], stride: int, dilation: int, groups: int, padding: str, bias: bool
) -> None:
    size = (kernel[0] // 2, kernel[1] // 2)
    layer = nn.Conv2d(
        6, 12, kernel, stride, size, dilation, groups, bias=bias, padding_mode=padding
    )
    inputs = torch.randn(2, 6, 15, 14)
    with torch.no_grad():
        outputs = layer(inputs)
        sites = sample_sites(2, map_size(layer, outputs), 50, torch.Generator().manual_seed(0))
        patches = layer_patches(layer, inputs, sites).view(len(sites.image), groups, -1)
        weight = layer.weight.reshape(groups, 12 // groups, -1)
        found = torch.einsum("rgd,god->rgo", patches, weight).flatten(1)
        if layer.bias is not None:
            found = found + layer.bias
        assert torch.allclose(found, channels_at(layer, outputs, sites), atol=1e-5)


def test_same_padding_and_linear_layers_have_patches_too() -> None:
    with torch.no_grad():
        layer = nn.Conv2d(3, 4, (4, 3), padding="same", bias=False)
        inputs = torch.randn(2, 3, 9, 9)
        outputs = layer(inputs)
        sites = _all_sites(layer, outputs)
        found = layer_patches(layer, inputs, sites) @ layer.weight.flatten(1).T
        assert torch.allclose(found, channels_at(layer, outputs, sites), atol=1e-5)
        for shape in [(5, 7), (5, 3, 7), (5, 3, 2, 7)]:
            linear = nn.Linear(7, 4, bias=False)
            inputs = torch.randn(shape)
            outputs = linear(inputs)
            sites = _all_sites(linear, outputs)
            assert len(sites.image) == outputs.numel() // 4
            found = layer_patches(linear, inputs, sites) @ linear.weight.T
            assert torch.allclose(found, channels_at(linear, outputs, sites), atol=1e-5)


@given(images=st.integers(1, 5), height=st.integers(1, 6), width=st.integers(1, 6))
def test_sites_are_distinct_and_all_are_reached(images: int, height: int, width: int) -> None:
    sites = sample_sites(images, (height, width), 10**6, torch.Generator())
    found = set(zip(sites.image.tolist(), sites.row.tolist(), sites.column.tolist(), strict=True))
    assert len(found) == len(sites.image) == images * height * width
    assert max(found) == (images - 1, height - 1, width - 1)
    few = sample_sites(images, (height, width), 3, torch.Generator().manual_seed(1))
    chosen = set(zip(few.image.tolist(), few.row.tolist(), few.column.tolist(), strict=True))
    assert chosen <= found
    assert len(chosen) == min(3, len(found))
