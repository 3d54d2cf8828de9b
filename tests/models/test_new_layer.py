"""A kind of layer that nobody knew is repaired and ranked once it has an adapter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prunetune.models.criteria import Evidence, make_criterion
from prunetune.models.groups import ChannelGroup, Member
from prunetune.models.layers import LayerFacts, MultiplyingAdapter, Sites
from prunetune.models.layers.adapter import Channels, register
from prunetune.models.repair import QuickRepair, gather_moments
from prunetune.models.repair.full import FULL, FullRepair
from prunetune.models.repair.moments import LayerMoments
from torch import Tensor, nn

from .networks import relative_error


class Mix(nn.Module):
    """Mixes the channels of images, as a convolution of one position does."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1) / inputs**0.5)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, C, H, W] to [n, outputs, H, W]."""
        mixed = torch.einsum("oc,nchw->nohw", self.weight[..., 0], x)
        return mixed + self.bias[:, None, None]


class MixAdapter(MultiplyingAdapter[Mix]):
    """All that is to be said of it."""

    def channels(self, layer: Mix) -> tuple[int, int]:
        """Outputs and inputs."""
        return layer.weight.shape[0], layer.weight.shape[1]

    def facts(self, layer: Mix) -> LayerFacts:
        """As of a convolution."""
        return LayerFacts(kind="conv", bias=True)

    def slim(self, layer: Mix, outputs: Channels | None, inputs: Channels | None) -> Mix:
        """One of fewer channels."""
        rows, columns = self.channels(layer)
        kept_rows = np.arange(rows) if outputs is None else outputs
        kept_columns = np.arange(columns) if inputs is None else inputs
        slimmed = Mix(len(kept_columns), len(kept_rows)).requires_grad_(False)
        slimmed.weight.copy_(layer.weight[kept_rows][:, kept_columns])
        slimmed.bias.copy_(layer.bias[kept_rows])
        return slimmed

    def patches(self, layer: Mix, inputs: Tensor, sites: Sites) -> Tensor:
        """Pixels."""
        return self.outputs_at(inputs, sites)[:, None]

    def outputs_at(self, values: Tensor, sites: Sites) -> Tensor:
        """Pixels."""
        return values[sites.image, :, sites.row, sites.column]


register(Mix, MixAdapter())


def _network() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), Mix(12, 6))
    return network.eval().requires_grad_(False), torch.randn(64, 3, 6, 6)


def test_it_is_repaired_by_least_squares_as_a_convolution_of_one_position_is() -> None:
    network, images = _network()
    mix = network[2]
    convolution = nn.Conv2d(12, 6, 1).requires_grad_(False)
    convolution.weight.copy_(mix.weight[..., None])
    convolution.bias.copy_(mix.bias)  # type: ignore[union-attr]
    known = nn.Sequential(network[0], network[1], convolution)
    kept = np.array([0, 2, 5, 7, 8, 11])
    producer = nn.Conv2d(3, 6, 3, padding=1).requires_grad_(False)
    producer.weight.copy_(network[0].weight[kept])
    producer.bias.copy_(network[0].bias[kept])  # type: ignore[union-attr]
    channels = {"0": (kept, None), "2": (None, kept)}
    found, errors = [], []
    fresh = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    for dense in (network, known):
        moments = gather_moments(dense, ["2"], images)
        last = dense[2]
        if isinstance(last, nn.Conv2d):
            narrow: nn.Module = nn.Conv2d(6, 6, 1).requires_grad_(False)
            narrow.weight.copy_(last.weight[:, kept])  # type: ignore[operator,union-attr]
            narrow.bias.copy_(last.bias)  # type: ignore[operator,union-attr]
        else:
            narrow = MixAdapter().slim(last, None, kept)
        slimmed = nn.Sequential(producer, nn.ReLU(), narrow)
        before = relative_error(slimmed(fresh), dense(fresh))
        QuickRepair(dense, moments, {}).apply(slimmed, channels)
        quick = slimmed(fresh)
        full = FullRepair(dense, images, moments, FULL).apply(slimmed, channels)(fresh)
        found += [quick, full]
        errors.append(relative_error(quick, dense(fresh)) / before)
    assert torch.allclose(found[0], found[2], atol=1e-5)
    assert torch.allclose(found[1], found[3], atol=1e-5)
    assert max(errors) < 1


@pytest.mark.parametrize("criterion", ["activation-residual", "l1", "geometric-median", "taylor"])
def test_its_channels_are_ranked(criterion: str) -> None:
    network, images = _network()
    network.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
    with torch.no_grad():
        network[2].weight[:, 1::2] = 0.0
        network[0].weight[1::2] = 0.0
        network[0].bias[1::2] = 0.0  # type: ignore[union-attr]
    moments = gather_moments(network, ["2"], images)
    assert isinstance(moments["2"], LayerMoments)
    unit = np.arange(12)[:, None]
    group = ChannelGroup("0", 12, (Member("0", "out", unit), Member("2", "in", unit)))
    evidence = Evidence(network, images, moments, {}, 0)
    order = make_criterion(criterion).rank(group, evidence)
    assert sorted(order.tolist()) == list(range(12))
    if criterion != "geometric-median":  # which keeps what is far from the others
        assert set(order[:6].tolist()) == set(range(0, 12, 2))
