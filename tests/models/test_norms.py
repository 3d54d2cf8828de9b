"""Networks with other layers than BatchNorm and ReLU between their weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.models import ChannelGroups, PruningTask, slim, trace_channel_groups
from prunetune.models.calls import count_flops
from prunetune.models.reductions.channels import ignore_removed, kept_channels
from prunetune.models.repair.full import FULL, LIGHT, FullRepair
from prunetune.models.repair.gathering import gather_moments
from prunetune.models.repair.held_out import held_out_count
from prunetune.models.repair.quick import QuickRepair
from prunetune.rewards import EvaluatorSpec, build_evaluator
from torch import Tensor, nn
from torch.nn import functional

from .networks import (
    half_kept,
    images_for,
    masked_outputs,
    random_kept,
    randomise,
    relative_error,
    widths_of,
)


class GroupNormNet(nn.Module):
    """Convolutions, a residual sum and a linear layer; norm groups of 4 and of 8 channels."""

    def __init__(self, planes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(planes, 16, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(4, 16)
        self.conv1 = nn.Conv2d(16, 24, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(6, 24)
        self.conv2 = nn.Conv2d(24, 16, 3, padding=1)
        self.norm3 = nn.GroupNorm(2, 16)
        self.linear = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.norm1(self.stem(x)).relu()
        x = x + self.norm3(self.conv2(self.norm2(self.conv1(x)).relu()))
        return self.linear(x.relu().mean(dim=(2, 3)))


class InstanceNormNet(nn.Module):
    """InstanceNorm with an affine map, and without."""

    def __init__(self, planes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(planes, 8, 3, padding=1)
        self.norm1 = nn.InstanceNorm2d(8, affine=True)
        self.conv = nn.Conv2d(8, 12, 3, padding=1)
        self.norm2 = nn.InstanceNorm2d(12)
        self.linear = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.norm1(self.stem(x)).relu()
        return self.linear(self.norm2(self.conv(x)).relu().mean(dim=(2, 3)))


class SyncedNet(nn.Module):
    """What distributed training leaves behind."""

    def __init__(self, planes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(planes, 8, 3, padding=1, bias=False)
        self.norm1 = nn.SyncBatchNorm(8)
        self.conv = nn.Conv2d(8, 12, 3, padding=1)
        self.norm2 = nn.SyncBatchNorm(12)
        self.linear = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.norm1(self.stem(x)).relu()
        return self.linear(self.norm2(self.conv(x)).relu().mean(dim=(2, 3)))


class PReLUNet(nn.Module):
    """A slope for each channel, and one for all."""

    def __init__(self, planes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(planes, 8, 3, padding=1)
        self.slopes = nn.PReLU(8)
        self.conv = nn.Conv2d(8, 12, 3, padding=1)
        self.slope = nn.PReLU()
        self.linear = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.slopes(self.stem(x))
        return self.linear(self.slope(self.conv(x)).mean(dim=(2, 3)))


class LayerNormMLP(nn.Module):
    """A perceptron on pixels, with a residual sum of normalised vectors."""

    def __init__(self, planes: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(planes * 8 * 8, 24)
        self.norm1 = nn.LayerNorm(24)
        self.hidden = nn.Linear(24, 20)
        self.norm2 = nn.LayerNorm(20, elementwise_affine=False)
        self.back = nn.Linear(20, 24)
        self.norm3 = nn.LayerNorm(24)
        self.linear = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.norm1(self.first(x.flatten(1))).relu()
        x = x + self.back(self.norm2(self.hidden(x)).relu())
        return self.linear(self.norm3(x).relu())


NETWORKS = {
    net.__name__: net for net in (GroupNormNet, InstanceNormNet, LayerNormMLP, SyncedNet, PReLUNet)
}


def _traced(name: str) -> tuple[nn.Module, ChannelGroups]:
    torch.manual_seed(0)
    network = randomise(NETWORKS[name]())
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.GroupNorm | nn.LayerNorm | nn.InstanceNorm2d | nn.PReLU):
                for parameter in module.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.3)
    return network, trace_channel_groups(network, torch.rand(1, 3, 8, 8), "all")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        # The sum is read through norm groups of 8 channels.
        ("GroupNormNet", {"stem": 2, "conv1": 6}),
        ("InstanceNormNet", {"stem": 8, "conv": 12}),
        ("LayerNormMLP", {"first": 24, "hidden": 20}),
        ("SyncedNet", {"stem": 8, "conv": 12}),
        ("PReLUNet", {"stem": 8, "conv": 12}),
    ],
)
def test_every_layer_is_pruned(name: str, sizes: dict[str, int]) -> None:
    _, groups = _traced(name)
    assert {group.name: group.size for group in groups} == sizes
    assert not groups.left_alone


@pytest.mark.parametrize("name", sorted(NETWORKS))
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_slim_equals_masked_and_tables_equal_the_counter(name: str, seed: int) -> None:
    network, groups = _traced(name)
    kept, images = random_kept(groups, seed), images_for(groups, seed=seed)
    with torch.no_grad():
        slimmed = slim(network, groups, kept)
        found = slimmed(images)
        assert relative_error(found, ignore_removed(network, groups, kept)(images)) <= 1e-5
    if name != "LayerNormMLP":  # zeros would count in its mean and variance
        expected = masked_outputs(network, groups, kept, images)
        assert relative_error(found, expected) <= 1e-5
    widths = widths_of(kept)
    assert groups.structure.flops(widths) == count_flops(slimmed, images[:1])
    numbers = sum(parameter.numel() for parameter in slimmed.parameters())
    assert groups.structure.params(widths) == numbers


def test_the_oracle_of_layernorm_averages_kept_channels_only() -> None:
    network, groups = _traced("LayerNormMLP")
    kept = [np.arange(group.size) for group in groups]
    kept[1] = np.array([0, 3, 7, 11])
    images = images_for(groups)
    with torch.no_grad():
        x = functional.layer_norm(network.first(images.flatten(1)), (24,))
        x = (x * network.norm1.weight + network.norm1.bias).relu()
        y = functional.layer_norm(network.hidden(x)[:, kept[1]], (4,)).relu()
        x = x + y @ network.back.weight[:, kept[1]].mT + network.back.bias
        expected = network.linear(network.norm3(x).relu())
        found = ignore_removed(network, groups, kept)(images)
    assert relative_error(found, expected) <= 1e-5


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_quick_light_and_full_repair_bring_outputs_nearer(name: str) -> None:
    network, groups = _traced(name)
    kept, images = half_kept(groups), images_for(groups, 128)
    channels = kept_channels(network, groups, kept)
    readers = sorted({member.layer for group in groups for member in group.readers()})
    moments = gather_moments(network, readers, images)
    with torch.no_grad():
        expected = network(images)

        def error(candidate: nn.Module) -> float:
            return float((candidate(images) - expected).square().mean())

        plain = slim(network, groups, kept)
        quick = slim(network, groups, kept)
        QuickRepair(network, moments, {}).apply(quick, channels)
        assert error(quick) < error(plain)
        for effort in (LIGHT, FULL):
            repaired = FullRepair(network, images, moments, effort).apply(quick, channels)
            assert error(repaired) < error(plain)


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_candidates_with_other_layers_are_evaluated(
    name: str, precision: str, digits_task: PruningTask
) -> None:
    torch.manual_seed(0)
    network = randomise(NETWORKS[name](1))
    task = dataclasses.replace(digits_task, network=network, scope="all", digest=f"own {name}")
    for repair in ("none", "quick", "light"):
        spec = EvaluatorSpec(
            precision=precision,
            repair=repair,
            measures=("loss",),
            recalibration=len(task.calibration) - held_out_count(len(task.calibration)),
        )
        evaluator = build_evaluator(task, spec, 0)
        widths = tuple(max(1, size // 2) for size in evaluator.groups.sizes)
        evaluation = evaluator.evaluate(widths)
        assert evaluation.error is None
        assert evaluation.costs["flops"] < 1
        built = evaluator.builder.build(widths, repair)
        with torch.no_grad():
            logits = built(task.validation.images)
        loss = float(functional.cross_entropy(logits, task.validation.labels))
        # Alignment and light repair of a finished candidate take more images.
        tolerance = 1e-3 if repair == "none" and precision == "fp32" else 0.05
        assert evaluation.measures["loss"] == pytest.approx(loss, rel=tolerance)


class _Straddling(nn.Module):
    """A norm group with channels of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1)
        self.norm = nn.GroupNorm(3, 12)
        self.last = nn.Conv2d(12, 8, 1)
        self.linear = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.cat([self.left(x), self.right(x)], dim=1))
        return self.linear(self.last(x.relu()).relu().mean(dim=(2, 3)))


class _Mixed(nn.Module):
    """One layer whose channels a grouped convolution reads too, and one LayerNorm over maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        self.norm = nn.GroupNorm(4, 16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.map_norm = nn.LayerNorm([16, 8, 8])
        self.last = nn.Conv2d(16, 8, 1)
        self.linear = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.norm(self.stem(x)).relu())
        return self.linear(self.last(self.map_norm(x)).relu().mean(dim=(2, 3)))


def test_what_cannot_be_pruned_is_left_alone_with_a_reason() -> None:
    images = torch.rand(1, 3, 8, 8)
    straddling = trace_channel_groups(_Straddling().eval(), images, "all")
    assert [group.name for group in straddling] == ["last"]
    assert straddling.left_alone == {
        "left": "norm normalises its channels together with others",
        "right": "norm normalises its channels together with others",
    }
    mixed = trace_channel_groups(_Mixed().eval(), images, "all")
    assert [group.name for group in mixed] == ["last"]
    assert mixed.left_alone == {
        "stem": "it runs through grouped convolutions and normalisation groups",
        "grouped": "it runs through map_norm, a LayerNorm over more than one axis",
    }
