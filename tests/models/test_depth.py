"""Removing activations: merged layers equal the two that they replace."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from prunetune.models import build_network
from prunetune.models.reductions.activations import find_activations
from prunetune.models.reductions.depth import DepthReduction, fit_lines
from prunetune.models.reductions.linear_maps import (
    joined,
    joined_multiplications,
    linear_map,
    obstacle_to_joining,
)
from prunetune.testing import check_reduction
from torch import Tensor, nn

from .networks import randomise

IMAGE = (3, 12, 12)


def _draw(layer: nn.Module) -> nn.Module:
    return layer.double().eval().requires_grad_(False)


_LAYERS = {
    "1x1": {"kernel_size": 1},
    "3x3": {"kernel_size": 3},
    "3x3 padded": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "uneven": {"kernel_size": (1, 3), "stride": (1, 2), "padding": (0, 1)},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": 2},
    "grouped": {"kernel_size": 3, "groups": 2, "padding": 1},
    "depthwise": {"kernel_size": 3, "groups": 4, "padding": 1},
}


@pytest.mark.parametrize(("one", "other"), itertools.product(_LAYERS, _LAYERS))
def test_two_convolutions_are_one_with_padding_moved_to_the_front(one: str, other: str) -> None:
    torch.manual_seed(0)
    first, second = (_draw(nn.Conv2d(4, 4, **_LAYERS[name])) for name in (one, other))
    assert obstacle_to_joining(first, second) is None
    images = torch.randn(2, 4, 17, 15, dtype=torch.float64)
    outer, inner = linear_map(first), linear_map(second)
    padded = copy.deepcopy(first)
    padded.padding = tuple(
        pad + step * more
        for pad, step, more in zip(outer.padding, outer.stride, inner.padding, strict=True)
    )
    bare = copy.deepcopy(second)
    bare.padding = (0, 0)
    merged = joined(outer, inner)
    assert torch.allclose(merged.module()(images), bare(padded(images)), atol=1e-10)
    assert merged.multiplications == joined_multiplications(outer, inner)
    if inner.padding == (0, 0):
        assert torch.allclose(merged.module()(images), second(first(images)), atol=1e-10)


def test_two_linear_layers_are_one() -> None:
    first, second = _draw(nn.Linear(5, 7)), _draw(nn.Linear(7, 3, bias=False))
    vectors = torch.randn(4, 6, 5, dtype=torch.float64)
    merged = joined(linear_map(first), linear_map(second)).module()
    assert torch.allclose(merged(vectors), second(first(vectors)))


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(4, 4, 1), "reflect"),
        (nn.Conv2d(4, 4, 2, padding="same"), nn.Conv2d(4, 4, 1), "unevenly"),
        (nn.Conv2d(4, 4, 1), nn.Linear(4, 4), "vectors"),
        (type("Own", (nn.Conv2d,), {})(4, 4, 1), nn.Conv2d(4, 4, 1), "Own"),
    ],
)
def test_what_cannot_be_joined_says_why(first: nn.Module, second: nn.Module, reason: str) -> None:
    assert reason in (obstacle_to_joining(first, second) or "")


class _Chain(nn.Module):
    """Chains of all kinds: three joined in a row, a shortcut, a reader of two, a shared one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.act0 = nn.ReLU()
        self.reduce = nn.Conv2d(8, 16, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.act1 = nn.ReLU6()
        self.middle = nn.Conv2d(16, 4, 3, stride=2, padding=1)
        self.act2 = nn.GELU()
        self.expand = nn.Conv2d(4, 8, 1)
        self.act3 = nn.SiLU()
        self.wide = nn.Conv2d(8, 8, 3, padding=1)
        self.bn4 = nn.BatchNorm2d(8)
        self.act4 = nn.ReLU()
        self.act5 = nn.ReLU()
        self.hidden = nn.Linear(8, 32)
        self.act6 = nn.ReLU()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act0(self.stem(x))
        x = self.act2(self.middle(self.act1(self.bn1(self.reduce(x)))))
        x = self.act3(self.expand(x))
        y = self.act4(self.bn4(self.wide(x)))
        x = self.act5(x + y).mean((2, 3))
        return self.head(self.drop(self.act6(self.hidden(x))))


def _chain() -> nn.Module:
    torch.manual_seed(0)
    return randomise(_Chain())


def test_activations_are_found_with_the_layers_around_them() -> None:
    found = {each.name: each for each in find_activations(_chain(), torch.rand(1, *IMAGE))}
    assert list(found) == ["act0", "act1", "act2", "act3", "act4", "act5", "act6"]
    joins = {name: each.join for name, each in found.items() if each.join is not None}
    pairs = {name: (join.first, join.norm, join.second) for name, join in joins.items()}
    assert pairs == {
        "act0": ("stem", None, "reduce"),
        "act1": ("reduce", "bn1", "middle"),
        "act2": ("middle", None, "expand"),
        "act6": ("hidden", None, "head"),
    }
    assert joins["act1"].places == (144, 36)
    sources = {name: each.source for name, each in found.items()}
    assert sources == {
        "act0": "stem",
        "act1": "bn1",
        "act2": "middle",
        "act3": "expand",
        "act4": "bn4",
        "act5": None,
        "act6": "hidden",
    }


@pytest.mark.parametrize("lines", [False, True])
def test_removing_activations_is_a_sound_reduction(lines: bool) -> None:
    network = _chain()
    images = torch.rand(8, *IMAGE)
    activations = find_activations(network, images[:1])
    fitted = fit_lines(network, activations, images) if lines else None
    check_reduction(DepthReduction(activations, fitted), network, images[:1], count=24)


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2", "vgg11bn"])
def test_networks_of_ours_lose_activations_soundly(name: str) -> None:
    torch.manual_seed(0)
    network = randomise(build_network(name, 10, (3, 16, 16)))
    images = torch.rand(1, 3, 16, 16)
    check_reduction(DepthReduction(find_activations(network, images)), network, images, count=3)


def test_merging_is_what_takes_fewer_multiplications() -> None:
    network = _chain()
    activations = find_activations(network, torch.rand(1, *IMAGE))
    names = [each.name for each in activations]

    def without(*gone: str) -> nn.Module:
        values = tuple(int(name not in gone) for name in names)
        return DepthReduction(activations).apply(network, values)

    # 1x1 from 8 to 16, then 3x3 to 4: one 3x3 from 8 to 4 is less than both.
    merged = without("act1")
    assert isinstance(merged.reduce, nn.Identity) and isinstance(merged.bn1, nn.Identity)
    assert (merged.middle.in_channels, merged.middle.out_channels) == (8, 4)
    # 3x3 to 4 channels at a quarter of the places, then 1x1 to 8: 3x3 from 16 to 8 is more.
    apart = without("act2")
    assert isinstance(apart.middle, nn.Conv2d) and isinstance(apart.act2, nn.Identity)
    # Of the head, 8 x 10 is less than 8 x 32 and 32 x 10.
    head = without("act6").head
    assert (head.in_features, head.out_features) == (8, 10)


def test_lines_are_least_squares_and_folded_into_what_comes_before() -> None:
    network = _chain()
    images = torch.rand(16, *IMAGE)
    activations = find_activations(network, images[:1])
    seen: list[Tensor] = []
    handle = network.act1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(images)
    handle.remove()
    before = seen[0].movedim(1, 0).flatten(1).double()
    after = before.clamp(0, 6)
    line = fit_lines(network, activations, images)["act1"]
    for channel in range(len(before)):
        system = torch.stack([before[channel], torch.ones_like(before[channel])], dim=1)
        slope, offset = torch.linalg.lstsq(system, after[channel, :, None]).solution.flatten()
        assert line.slope[channel].item() == pytest.approx(slope.item(), abs=1e-6)
        assert line.offset[channel].item() == pytest.approx(offset.item(), abs=1e-6)
    lines = fit_lines(network, activations, images)
    straight = DepthReduction(activations, lines)._straightened(network, (1, 0, 1, 1, 1, 1, 1))
    with torch.inference_mode():
        out = straight.bn1(straight.reduce(network.act0(network.stem(images))))
    expected = line.slope[:, None] * before + line.offset[:, None]
    assert torch.allclose(out.movedim(1, 0).flatten(1).double(), expected, atol=1e-5)
