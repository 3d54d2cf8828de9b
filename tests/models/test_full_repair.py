"""Full repair: nothing changes when nothing is lost, errors shrink, nobody else is touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from prunetune.models import ChannelGroups, slim, trace_channel_groups
from prunetune.models.batchnorm import recalibrate_batchnorm
from prunetune.models.calls import norms_after
from prunetune.models.reductions.channels import kept_channels
from prunetune.models.repair import QuickRepair, gather_moments
from prunetune.models.repair.full import FULL, LIGHT, Effort, FullRepair
from prunetune.models.repair.targets import gather_targets
from torch import Tensor, nn

from .networks import (
    OWN_NETWORKS,
    SmallNet,
    half_kept,
    images_for,
    random_kept,
    randomise,
    relative_error,
    same_weights,
    traced_own,
    weights_of,
)

_QUICKER = replace(FULL, rows=4000)
_STYLES = ["plain", "swapped", "in place", "discarded"]


def _repairs(
    network: nn.Module,
    groups: ChannelGroups,
    images: Tensor,
    effort: Effort = _QUICKER,
) -> tuple[QuickRepair, FullRepair]:
    readers = {member.layer for group in groups for member in group.readers()}
    weighted = [n for n in readers if hasattr(network.get_submodule(n), "weight")]
    moments = gather_moments(network, weighted, images)
    quick = QuickRepair(network, moments, norms_after(network, images[:2]))
    return quick, FullRepair(network, images, moments, effort)


def _small(style: str, norm: bool = True) -> tuple[nn.Module, ChannelGroups, Tensor]:
    torch.manual_seed(0)
    network = SmallNet(style, norm)
    images = torch.randn(96, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    recalibrate_batchnorm(randomise(network), [images])
    return network, trace_channel_groups(network, images[:1]), images


@pytest.mark.parametrize("effort", [FULL, LIGHT], ids=["full", "light"])
@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_with_everything_kept_the_network_is_unchanged(name: str, effort: Effort) -> None:
    network, groups = traced_own(name)
    images = images_for(groups, 64)
    quick, full = _repairs(network, groups, images, effort)
    kept = [np.arange(size) for size in groups.sizes]
    channels = kept_channels(network, groups, kept)
    slimmed = slim(network, groups, kept)
    quick.apply(slimmed, channels)
    with torch.no_grad():
        repaired = full.apply(slimmed, channels)
        assert relative_error(repaired(images), network(images)) <= 1e-4


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("style", [*_STYLES, "none"])
def test_outputs_come_nearer_to_the_dense_networks_than_after_quick_repair(
    style: str, norm: bool
) -> None:
    network, groups, images = _small(style, norm)
    quick, full = _repairs(network, groups, images)
    _, light = _repairs(network, groups, images, LIGHT)
    fresh = torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    errors: dict[str, list[float]] = {"none": [], "quick": [], "light": [], "full": []}
    with torch.no_grad():
        wanted = network(fresh)
        for seed in range(3):
            kept = half_kept(groups, seed)
            channels = kept_channels(network, groups, kept)
            slimmed = slim(network, groups, kept)
            errors["none"].append(float((slimmed(fresh) - wanted).square().mean()))
            quick.apply(slimmed, channels)
            errors["quick"].append(float((slimmed(fresh) - wanted).square().mean()))
            for name, repair in (("light", light), ("full", full)):
                repaired = repair.apply(slimmed, channels)
                errors[name].append(float((repaired(fresh) - wanted).square().mean()))
    none, quickly, lightly, fully = (sum(each) for each in errors.values())
    assert fully < quickly < none
    assert lightly < quickly


def test_the_way_a_sum_is_written_makes_no_difference() -> None:
    outputs = []
    for style in _STYLES:
        network, groups, images = _small(style)
        quick, full = _repairs(network, groups, images)
        kept = half_kept(groups)
        channels = kept_channels(network, groups, kept)
        slimmed = slim(network, groups, kept)
        quick.apply(slimmed, channels)
        with torch.no_grad():
            outputs.append(full.apply(slimmed, channels)(images))
    for other in outputs[1:]:
        assert relative_error(other, outputs[0]) <= 1e-4


@pytest.mark.parametrize("effort", [_QUICKER, LIGHT], ids=["full", "light"])
@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_running_in_bf16_changes_little_of_what_repair_brings(name: str, effort: Effort) -> None:
    network, groups = traced_own(name)
    images = images_for(groups, 64)
    quick, exact = _repairs(network, groups, images, effort)
    rounded = FullRepair(network, images, exact._moments, effort, "bf16")
    kept = half_kept(groups)
    channels = kept_channels(network, groups, kept)
    slimmed = slim(network, groups, kept)
    quick.apply(slimmed, channels)
    with torch.no_grad():
        wanted, found = (each.apply(slimmed, channels) for each in (exact, rounded))
        assert {value.dtype for value in found.parameters()} == {torch.float32}
        brought = relative_error(wanted(images), slimmed(images))
        assert relative_error(found(images), wanted(images)) <= 0.02 + 0.1 * brought


class _OneSum(nn.Module):
    """A residual sum right before linear outputs, so that its fit can be solved by hand."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 1)
        self.second = nn.Conv2d(6, 3, kernel, padding=kernel // 2)
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        return self.linear((self.second(self.first(x).relu()) + x).mean(dim=(2, 3)))


@pytest.mark.parametrize("trust", [0.0, 0.3])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_layer_before_a_sum_is_numpys_regression_on_the_slim_networks_activations(
    trust: float, kernel: int
) -> None:
    torch.manual_seed(0)
    network = _OneSum(kernel).eval().requires_grad_(False)
    images = torch.randn(30, 3, 8, 8)
    groups = trace_channel_groups(network, images[:1])
    moments = gather_moments(network, ["second"], images, rows=10**9)
    full = FullRepair(network, images, moments, replace(FULL, rows=10**9, trust=trust))
    kept = [np.array([0, 2, 5])]
    channels = kept_channels(network, groups, kept)
    slimmed = slim(network, groups, kept)
    repaired = full.apply(slimmed, channels)

    def rows(maps: Tensor) -> np.ndarray:
        return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).double().numpy()

    read = network.first(images).relu()
    patches = nn.functional.unfold(read, kernel, padding=kernel // 2)
    inputs, target = rows(patches[..., None]), rows(network.second(read))
    columns = (kept[0][:, None] * kernel**2 + np.arange(kernel**2)).ravel()
    # The first layer lost outputs only, so refitting it returns what it was.
    assert torch.allclose(repaired.first.weight, network.first.weight[kept[0]], atol=1e-4)  # type: ignore[union-attr,index]
    x = inputs[:, columns]
    centred = x - x.mean(axis=0)
    amount = 1e-3 * centred.var(axis=0).mean() * len(x)
    prior = network.second.weight.flatten(1).double().numpy()[:, columns]
    # What the prior and the dense network's moments say, as rows of data.
    believed = np.vstack(
        [
            np.sqrt(amount) * np.eye(len(columns)),
            np.sqrt(trust) * (inputs - inputs.mean(axis=0))[:, columns],
        ]
    )
    data = np.vstack([centred, believed])
    wanted = np.vstack([target - target.mean(axis=0), believed @ prior.T])
    solved = np.linalg.lstsq(data, wanted, rcond=None)[0].T
    assert np.allclose(repaired.second.weight.flatten(1), solved, atol=1e-4)  # type: ignore[union-attr,operator]
    offset = target.mean(axis=0) - solved @ x.mean(axis=0)
    assert np.allclose(repaired.second.bias, offset, atol=1e-4)  # type: ignore[union-attr,arg-type]


def test_more_images_are_regressed_on_at_more_places() -> None:
    network, groups, images = _small("plain")
    effort = replace(FULL, rows=500, rows_per_image=9)
    found = []
    for count in (40, 90):
        _, full = _repairs(network, groups, images[:count], effort)
        found.append(len(full._targets.outputs["stem"]))
    assert found == [500, 810]


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_neither_the_dense_nor_the_slim_network_is_touched(name: str) -> None:
    network, groups = traced_own(name)
    images = images_for(groups, 64)
    before = weights_of(network)
    quick, full = _repairs(network, groups, images)
    kept = random_kept(groups, 3)
    channels = kept_channels(network, groups, kept)
    slimmed = slim(network, groups, kept)
    quick.apply(slimmed, channels)
    quickly = weights_of(slimmed)
    repaired = full.apply(slimmed, channels)
    with torch.no_grad():
        assert torch.isfinite(repaired(images)).all()
    assert same_weights(network, before)
    assert same_weights(slimmed, quickly)
    for each in (network, slimmed, repaired):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in each.modules())


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_same_candidate_same_repair(name: str) -> None:
    network, groups = traced_own(name)
    images = images_for(groups, 64)
    quick, full = _repairs(network, groups, images)
    found = []
    for seed in (1, 2, 1):
        kept = random_kept(groups, seed)
        channels = kept_channels(network, groups, kept)
        slimmed = slim(network, groups, kept)
        quick.apply(slimmed, channels)
        found.append(weights_of(full.apply(slimmed, channels)))
    assert all(torch.equal(found[0][key], found[2][key]) for key in found[0])


class _RectifiedInPlace(nn.Module):
    """What is added is not what BatchNorm gave: a rectifier overwrote it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.back = nn.Conv2d(8, 3, 1, bias=False)
        self.back_norm = nn.BatchNorm2d(3)
        self.linear = nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        y = self.norm(self.conv(x)).relu()
        y = self.back_norm(self.back(y))
        y.relu_()
        return self.linear((x + y).mean(dim=(2, 3)))


def test_a_rectifier_in_place_before_the_sum_is_noticed() -> None:
    torch.manual_seed(0)
    network = randomise(_RectifiedInPlace())
    images = torch.randn(64, 3, 8, 8)
    groups = trace_channel_groups(network, images[:1])
    targets = gather_targets(network, ["conv", "back"], norms_after(network, images), images, 500)
    assert targets.order == ["conv", "back"]
    assert not targets.sums
    quick, full = _repairs(network, groups, images)
    kept = half_kept(groups)
    channels = kept_channels(network, groups, kept)
    slimmed = slim(network, groups, kept)
    quick.apply(slimmed, channels)
    with torch.no_grad():
        wanted = network(images)
        before = (slimmed(images) - wanted).square().mean()
        assert (full.apply(slimmed, channels)(images) - wanted).square().mean() <= before


def test_targets_are_what_the_dense_network_computes() -> None:
    network, groups = traced_own("SmallNet")
    images = images_for(groups, 4)
    norms = norms_after(network, images)
    targets = gather_targets(network, ["stem", "blocks.0.conv2"], norms, images, 10**9)
    assert targets.order == ["stem", "blocks.0.conv2"]
    assert set(targets.sums) == {"blocks.0.conv2"}  # the stem's is rectified before it is added
    with torch.no_grad():
        x = network.get_submodule("norm")(network.get_submodule("stem")(images)).relu()
        block = network.get_submodule("blocks.0")
        y = block.get_submodule("bn1")(block.get_submodule("conv1")(x)).relu()
        total = block.get_submodule("bn2")(block.get_submodule("conv2")(y)) + x
    expected = total.permute(0, 2, 3, 1).reshape(-1, total.shape[1])
    assert torch.allclose(targets.sums["blocks.0.conv2"], expected, atol=1e-5)


def test_too_few_places_without_moments_of_patches_leave_quick_repairs_weights() -> None:
    torch.manual_seed(0)
    reader = nn.Conv2d(300, 8, 3, padding=1)  # 2,700 columns: moments are of channels alone
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    network = nn.Sequential(nn.Conv2d(3, 300, 1), nn.ReLU(), reader, *head).eval()
    images = torch.randn(20, 3, 4, 4)  # 320 places for 1,800 columns
    groups = trace_channel_groups(network, images[:1])
    quick, light = _repairs(network, groups, images, LIGHT)
    kept = [np.arange(200 if group.size == 300 else group.size) for group in groups]
    channels = kept_channels(network, groups, kept)
    slimmed = slim(network, groups, kept)
    quick.apply(slimmed, channels)
    repaired = light.apply(slimmed, channels)
    assert torch.equal(repaired.get_parameter("2.weight"), slimmed.get_parameter("2.weight"))
