"""Moments of few images, and of layers that read very many columns."""

from __future__ import annotations

import resource

import numpy as np
import pytest
import torch
from prunetune.models import trace_channel_groups
from prunetune.models.criteria import Evidence, make_criterion
from prunetune.models.reductions.channels import kept_channels, slim
from prunetune.models.repair import QuickRepair, gather_moments
from prunetune.models.repair.held_out import held_out_count
from prunetune.models.repair.moments import (
    RIDGE,
    LayerMoments,
    SampledMoments,
    moments_to_store,
    stored_moments,
)
from torch import Tensor, nn

from .networks import relative_error


def _two_layers(images: int) -> tuple[nn.Sequential, Tensor]:
    """A convolution that reads 576 columns, and images of independent pixels."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 16, 3, padding=1)
    ).eval()
    return network, torch.randn(images, 3, 8, 8, generator=torch.Generator().manual_seed(images))


def _error_on_fresh_images(network: nn.Sequential, moments: LayerMoments) -> float:
    groups = trace_channel_groups(network, torch.zeros(1, 3, 8, 8), "all")
    kept = [np.arange(size) for size in groups.sizes]
    index = next(i for i, group in enumerate(groups) if group.name == "0")
    kept[index] = np.arange(0, 64, 2)
    slimmed = slim(network, groups, kept)
    QuickRepair(network, {"2": moments}, {}).apply(slimmed, kept_channels(network, groups, kept))
    fresh = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return relative_error(slimmed(fresh), network(fresh))


@pytest.mark.parametrize("images", [4, 8])
def test_few_images_raise_the_ridge_and_repair_gains_from_it(images: int) -> None:
    network, few = _two_layers(images)
    found = gather_moments(network, ["2"], few)["2"]
    assert isinstance(found, LayerMoments)
    assert found.ridge > RIDGE
    as_before = LayerMoments(found.mean, found.covariance, found.per_channel, RIDGE)
    assert _error_on_fresh_images(network, found) < _error_on_fresh_images(network, as_before)
    unrepaired = LayerMoments(found.mean, found.covariance, found.per_channel, 1e9)
    assert _error_on_fresh_images(network, found) <= 1.01 * _error_on_fresh_images(
        network, unrepaired
    )


def test_many_images_keep_the_ridge_and_nothing_is_held_out() -> None:
    network, many = _two_layers(128)
    found = gather_moments(network, ["2"], many)["2"]
    everything = gather_moments(network, ["2"], many, held_out=0)["2"]
    assert isinstance(found, LayerMoments) and isinstance(everything, LayerMoments)
    assert found.ridge == RIDGE
    assert torch.equal(found.covariance, everything.covariance)
    assert torch.equal(found.mean, everything.mean)


def test_a_quarter_is_held_out_if_anything_is_left() -> None:
    assert [held_out_count(n) for n in (1, 2, 8, 9, 512, 5000)] == [0, 1, 2, 3, 64, 64]


@pytest.mark.parametrize("rows", [5, 40])
def test_a_sample_regresses_as_its_covariance_does(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(rows, 24, generator=generator)
    mean = vectors.mean(dim=0)
    sample = vectors - mean
    covariance = (sample.mT @ sample / rows)[None]
    matrix = torch.randn(7, 24, generator=generator, dtype=torch.float64)
    kept = torch.arange(0, 24, 3)
    exact = LayerMoments(mean[None], covariance, 1, 0.1).regress(0, matrix, kept)
    found = SampledMoments(mean[None], sample, 0.1).regress(0, matrix, kept)
    assert torch.allclose(found, exact, atol=1e-5)


def test_moments_come_back_from_where_they_are_stored() -> None:
    mean, sample = torch.randn(1, 3), torch.randn(5, 3)
    moments = {
        "a.b": LayerMoments(mean, torch.eye(3)[None], 1, 0.5),
        "c": SampledMoments(mean, sample, 0.25),
    }
    read = stored_moments(moments_to_store(moments))
    assert {name: each.ridge for name, each in read.items()} == {"a.b": 0.5, "c": 0.25}
    assert isinstance(read["c"], SampledMoments) and torch.equal(read["c"].sample, sample)
    assert isinstance(read["a.b"], LayerMoments)
    assert torch.equal(read["a.b"].covariance, torch.eye(3)[None])


class _Flattened(nn.Module):
    """What stands before the classifier of VGG: 512 maps of 7 x 7 in one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 512, 1)
        self.wide = nn.Linear(512 * 49, 32)
        self.last = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, 3, 7, 7] to logits."""
        return self.last(self.wide(self.conv(x).relu().flatten(1)).relu())


def test_a_layer_of_25088_columns_is_ranked_and_repaired_in_bounded_memory() -> None:
    torch.manual_seed(0)
    network, images = _Flattened().eval(), torch.randn(48, 3, 7, 7)
    groups = trace_channel_groups(network, images[:1], "all")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    moments = gather_moments(network, ["wide", "last"], images)
    assert sum(each.nbytes for each in moments_to_store(moments).values()) < 8 * 2**20
    group = next(group for group in groups if group.name == "conv")
    evidence = Evidence(network, images, moments, {}, 0)
    order = make_criterion("activation-residual").rank(group, evidence)
    kept = [np.arange(size) for size in groups.sizes]
    index = next(i for i, each in enumerate(groups) if each.name == "conv")
    kept[index] = np.sort(order[:256])
    slimmed, unrepaired = slim(network, groups, kept), slim(network, groups, kept)
    QuickRepair(network, moments, {}).apply(slimmed, kept_channels(network, groups, kept))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    # A covariance of so many columns alone would take 2.5 GB.
    assert grown < 2**20, f"{grown / 2**20:.1f} GB"
    fresh = torch.randn(64, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = network(fresh)
        assert relative_error(slimmed(fresh), wanted) < relative_error(unrepaired(fresh), wanted)
