"""Alignment: nothing changes when nothing is lost; otherwise what numpy and scikit-learn say."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from prunetune.models import ChannelGroups, slim, trace_channel_groups
from prunetune.models.batchnorm import recalibrate_batchnorm
from prunetune.models.calls import norms_after
from prunetune.models.inference.precision import cast_network, place_images
from prunetune.models.reductions.channels import KeptChannels, kept_channels
from prunetune.models.repair import QuickRepair, gather_moments
from prunetune.models.repair.align import Alignment
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from .networks import (
    OWN_NETWORKS,
    Kept,
    SmallNet,
    half_kept,
    images_for,
    randomise,
    relative_error,
    same_weights,
    traced_own,
    weights_of,
)

_CPU = torch.device("cpu")


def _quickly_repaired(
    network: nn.Module, groups: ChannelGroups, images: Tensor, kept: Kept
) -> tuple[nn.Module, KeptChannels]:
    """A slim network of its own after quick repair, and what it kept."""
    readers = {member.layer for group in groups for member in group.readers()}
    weighted = [n for n in readers if hasattr(network.get_submodule(n), "weight")]
    moments = gather_moments(network, weighted, images)
    channels = kept_channels(network, groups, kept)
    slimmed = slim(network, groups, kept)
    QuickRepair(network, moments, norms_after(network, images[:2])).apply(slimmed, channels)
    return cast_network(slimmed, "fp32", _CPU), channels


def _calibrated(style: str) -> tuple[nn.Module, ChannelGroups, Tensor]:
    """A network whose BatchNorm statistics are those of the images."""
    torch.manual_seed(0)
    network = SmallNet(style)
    images = torch.randn(96, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    recalibrate_batchnorm(randomise(network), [images])
    return network, trace_channel_groups(network, images[:1]), images


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_with_everything_kept_the_network_is_unchanged(name: str) -> None:
    network, groups = traced_own(name)
    images = images_for(groups, 256)
    network = copy.deepcopy(network)
    recalibrate_batchnorm(network, [images])
    kept = [np.arange(size) for size in groups.sizes]
    slimmed, channels = _quickly_repaired(network, groups, images, kept)
    Alignment(network, norms_after(network, images[:2]), images).apply(slimmed, channels, images)
    with torch.no_grad():
        # Batches are normalised by biased variances and remembered with unbiased ones.
        assert relative_error(slimmed(images), network(images)) <= 5e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_whatever_the_network_outputs_come_nearer_to_the_dense_ones(
    name: str, precision: str
) -> None:
    network, groups = traced_own(name)
    images = images_for(groups, 128)
    network = copy.deepcopy(network)
    recalibrate_batchnorm(network, [images])
    alignment = Alignment(network, norms_after(network, images[:2]), images)
    before = weights_of(network)
    recalibrated, aligned = 0.0, 0.0
    fresh = images_for(groups, 64, seed=1)
    for seed in range(3):
        slimmed, channels = _quickly_repaired(network, groups, images, half_kept(groups, seed))
        chosen = "bf16" if precision == "bf16" else "fp32"
        own = cast_network(slimmed, chosen, _CPU)
        alignment.apply(own, channels, place_images(images, chosen, _CPU))
        recalibrate_batchnorm(slimmed, [images])
        with torch.no_grad():
            wanted = network(fresh)
            recalibrated += float((slimmed(fresh) - wanted).square().mean())
            found = own(place_images(fresh, chosen, _CPU)).float()
            aligned += float((found - wanted).square().mean())
    assert aligned < recalibrated
    assert same_weights(network, before)


def test_the_way_a_sum_is_written_makes_no_difference() -> None:
    outputs = []
    for style in ("plain", "swapped", "in place", "discarded"):
        network, groups, images = _calibrated(style)
        slimmed, channels = _quickly_repaired(network, groups, images, half_kept(groups))
        norms = norms_after(network, images[:2])
        Alignment(network, norms, images).apply(slimmed, channels, images)
        with torch.no_grad():
            outputs.append(slimmed(images))
    for other in outputs[1:]:
        assert relative_error(other, outputs[0]) <= 1e-4


class _OneSum(nn.Module):
    """One residual sum, then a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(5, 8, 1)
        self.second = nn.Conv2d(8, 5, 1, bias=False)
        self.norm = nn.BatchNorm2d(5)
        self.linear = nn.Linear(5, 3)

    def branch(self, x: Tensor) -> Tensor:
        """What is added to the shortcut."""
        return self.norm(self.second(self.first(x).relu()))

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        return self.linear((self.branch(x) + x).relu().mean(dim=(2, 3)))


def _rows(maps: Tensor) -> np.ndarray:
    return maps.movedim(1, -1).flatten(0, -2).double().numpy()


@torch.no_grad()
def test_scales_go_where_numpys_point_and_the_classifier_is_scikit_learns_ridge() -> None:
    torch.manual_seed(0)
    network = randomise(_OneSum()).eval().requires_grad_(False)
    images = torch.randn(30, 5, 8, 8)  # 1,920 places: all of them are taken
    recalibrate_batchnorm(network, [images])
    groups = trace_channel_groups(network, images[:1])
    kept = [np.array([0, 2, 5])]
    slimmed, channels = _quickly_repaired(network, groups, images, kept)
    plain = copy.deepcopy(slimmed)
    recalibrate_batchnorm(plain, [images])
    Alignment(network, {"second": "norm"}, images).apply(slimmed, channels, images)

    wanted, given, found = (_rows(each.branch(images)) for each in (network, plain, slimmed))
    for channel in range(5):
        slope = np.polyfit(given[:, channel], wanted[:, channel], 1)[0]
        scale = 1 + 0.75 * (slope - 1)
        expected = scale * (given[:, channel] - given[:, channel].mean())
        expected += wanted[:, channel].mean()
        assert np.allclose(found[:, channel], expected, atol=2e-3)

    features = (slimmed.branch(images) + images).relu().mean(dim=(2, 3)).double().numpy()
    logits = network(images).double().numpy()
    prior = network.linear.weight.double().numpy()
    amount = (1e-3 + 0.6 * 5 / 30) * features.var(axis=0).mean()
    oracle = Ridge(alpha=amount * len(features)).fit(features, logits - features @ prior.T)
    assert np.allclose(slimmed.linear.weight, prior + oracle.coef_, atol=2e-3)
    assert np.allclose(slimmed.linear.bias, oracle.intercept_, atol=2e-3)
