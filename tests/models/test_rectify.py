"""Rectifiers behind layers: found where they are, and what they hide is left to the fit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from prunetune.models import slim, trace_channel_groups
from prunetune.models.calls import norms_after
from prunetune.models.reductions.channels import KeptChannels, kept_channels
from prunetune.models.repair import QuickRepair, gather_moments
from prunetune.models.repair.full import FULL, FullRepair
from prunetune.models.repair.rectify import FlatParts, Rectifier, rectifiers_after
from torch import Tensor, nn
from torch.nn import functional

from .networks import half_kept

# Quarters, so that nothing is rounded and what is equal is exactly equal.
_VALUES = st.integers(-32, 32).map(lambda quarters: quarters / 4)


@given(
    wanted=arrays(np.float32, (5, 2), elements=_VALUES),
    computed=arrays(np.float32, (5, 2), elements=_VALUES),
    scale=arrays(np.float32, 2, elements=st.sampled_from([-2.0, -0.5, 0.5, 1.0, 4.0])),
    shift=arrays(np.float32, 2, elements=_VALUES),
    high=st.sampled_from([6.0, math.inf]),
)
def test_the_nearest_output_is_as_good_and_none_that_is_as_good_is_nearer(
    wanted: np.ndarray, computed: np.ndarray, scale: np.ndarray, shift: np.ndarray, high: float
) -> None:
    flat = FlatParts.behind(
        Rectifier(0.0, high), torch.tensor(scale), torch.tensor(shift), torch.ones(2).bool()
    )
    nearest = flat.nearest(torch.tensor(wanted), torch.tensor(computed)).numpy()
    rectified = np.clip(scale * wanted + shift, 0.0, high)
    assert np.array_equal(np.clip(scale * nearest + shift, 0.0, high), rectified)
    # Of a grid of outputs, those that the rectifier makes equal to the wanted one.
    grid = np.arange(-40.0, 40.0, 1 / 16, dtype=np.float32)[:, None, None] + 0 * wanted
    equal = np.clip(scale * grid + shift, 0.0, high) == rectified
    distances = np.where(equal, np.abs(grid - computed), np.inf).min(axis=0)
    assert np.array_equal(np.abs(nearest - computed), distances)


def test_a_channel_that_is_hardly_scaled_has_no_flat_parts() -> None:
    scale, shift = torch.tensor([1.0, 1e-9]), torch.tensor([0.5, -1.0])
    flat = FlatParts.behind(Rectifier(0.0, 6.0), scale, shift, torch.tensor([True, False]))
    assert flat.low.tolist() == [-0.5, -math.inf]
    assert flat.high.tolist() == [5.5, math.inf]


class _ManyRectifiers(nn.Module):
    """Layers before each kind of rectifier, and before none."""

    def __init__(self) -> None:
        super().__init__()
        names = (
            "module",
            "inplace",
            "method",
            "six",
            "bounded",
            "plain",
            "shared",
            "normed",
            "keyword",
        )
        self.layers = nn.ModuleDict({name: nn.Conv2d(3, 3, 1) for name in names})
        self.norm = nn.BatchNorm2d(3)
        self.relu, self.relu_ = nn.ReLU(), nn.ReLU(inplace=True)
        self.six, self.bounded = nn.ReLU6(), nn.Hardtanh(-2.0, 3.0)
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        layers = self.layers
        x = self.relu(layers["module"](x))
        x = self.relu_(layers["inplace"](x))
        x = layers["method"](x).relu()
        x = self.six(layers["six"](x))
        x = self.bounded(layers["bounded"](x))
        x = functional.silu(layers["plain"](x))
        shared = layers["shared"](x)
        x = torch.cat([functional.relu(shared), shared], dim=1)[:, :3]
        x = functional.relu(self.norm(layers["normed"](x)))
        x = torch.relu(input=layers["keyword"](x))
        return self.linear(x.mean(dim=(2, 3)))


def test_rectifiers_are_found_and_what_is_read_elsewhere_too_is_not() -> None:
    network = _ManyRectifiers().eval()
    images = torch.randn(2, 3, 4, 4)
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    norms = norms_after(network, images)
    found = rectifiers_after(network, [*layers, "linear"], norms, images)
    relu = Rectifier(0.0, math.inf)
    assert found == {
        "layers.module": relu,
        "layers.inplace": relu,
        "layers.method": relu,
        "layers.six": Rectifier(0.0, 6.0),
        "layers.bounded": Rectifier(-2.0, 3.0),
        "layers.normed": relu,
        "layers.keyword": relu,
    }
    assert not any(module._forward_hooks for module in network.modules())


class _Rectified(nn.Module):
    """One layer that reads slimmed channels, and a rectifier behind it."""

    def __init__(self, rectifier: nn.Module, norm: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 8, 1, groups=2)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.rectifier = rectifier
        self.linear = nn.Linear(8, 4)

    def features(self, x: Tensor) -> Tensor:
        """What the rectifier passes on."""
        rectified: Tensor = self.rectifier(self.norm(self.second(self.first(x).relu())))
        return rectified

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        return self.linear(self.features(x).mean(dim=(2, 3)))


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("rectifier", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.5)])
def test_every_round_comes_nearer_to_what_the_rectifier_passes_on(
    rectifier: nn.Module, norm: bool
) -> None:
    torch.manual_seed(0)
    network = _Rectified(rectifier, norm).eval()
    if norm:
        # Every other channel is turned round: small outputs are what gets through.
        network.norm.weight.data[::2] = -1.0  # type: ignore[union-attr,index]
    network.requires_grad_(False)
    images = torch.randn(40, 3, 8, 8)
    groups = trace_channel_groups(network, images[:1])
    moments = gather_moments(network, ["second", "linear"], images)
    quick = QuickRepair(network, moments, norms_after(network, images[:2]))
    kept = half_kept(groups)
    channels = kept_channels(network, groups, kept)
    slimmed = slim(network, groups, kept)
    quick.apply(slimmed, channels)
    errors = []
    for rounds in (0, 1, 3):
        effort = replace(FULL, rows=10**9, trust=0.0, rounds=rounds)
        repaired = FullRepair(network, images, moments, effort).apply(slimmed, channels)
        assert isinstance(repaired, _Rectified)
        wanted = network.features(images)[:, _kept_outputs(channels)]
        errors.append(float((repaired.features(images) - wanted).square().mean()))
    assert errors[2] < errors[1] < errors[0]


def _kept_outputs(channels: KeptChannels) -> list[int]:
    """Outputs of the second layer that are left."""
    outputs, _ = channels["second"]
    return list(range(8)) if outputs is None else list(outputs)
