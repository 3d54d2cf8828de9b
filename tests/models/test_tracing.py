"""Channels are followed exactly whatever a network does to them, or left alone with a reason."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from prunetune.errors import NetworkError
from prunetune.models import (
    ChannelGroups,
    build_network,
    slim,
    trace_channel_groups,
)
from prunetune.models.calls import count_flops
from prunetune.models.soundness import sound_groups
from torch import Tensor, nn

from . import awkward_networks as awkward
from .networks import (
    half_kept,
    images_for,
    masked_outputs,
    random_kept,
    randomise,
    relative_error,
    widths_of,
)

_SHAPE = (3, 8, 8)


def _traced(
    build: Callable[[], nn.Module], scope: str = "inner"
) -> tuple[nn.Module, ChannelGroups]:
    torch.manual_seed(0)
    network = randomise(build())
    return network, trace_channel_groups(network, torch.rand(1, *_SHAPE), scope)  # type: ignore[arg-type]


def _is_exact(network: nn.Module, groups: ChannelGroups) -> None:
    """Slim equals masked, and costs what the tables say."""
    images = images_for(groups)
    for seed in range(4):
        kept = random_kept(groups, seed)
        slimmed = slim(network, groups, kept)
        with torch.no_grad():
            found = slimmed(images)
        assert relative_error(found, masked_outputs(network, groups, kept, images)) <= 1e-5
        widths = widths_of(kept)
        assert count_flops(slimmed, images[:1]) == groups.structure.flops(widths)
        params = sum(each.numel() for each in slimmed.parameters())
        assert params == groups.structure.params(widths)


@pytest.mark.parametrize(
    ("build", "pruned", "left_alone"),
    [
        (awkward.RollNet, ["b.0"], {"a.0": "mixed"}),
        (awkward.EveryOtherNet, ["b.0"], {"a.0": "mixed"}),
        (awkward.BilinearNet, ["a.0"], {"b.0": "bmm"}),
        (awkward.ShuffleNet, ["branch.0.0", "b.0"], {"a.0": "mixed", "branch.1.0": "mixed"}),
        (awkward.PlainListNet, ["a.0", "b.0"], {}),
        (awkward.BoundMethodNet, ["a.0", "b.0"], {}),
        (awkward.TwoNamesNet, ["a.0", "b.0"], {}),
        (awkward.TiedNet, ["a.0"], {"b.0": "shares its weights", "c.0": "shares", "d.0": "shares"}),
        (awkward.WeightsBesideNet, [], {"a.0": "weights", "b.0": "weights"}),
        (awkward.ImageBesideNet, ["a.0", "b.0"], {}),
        (awkward.LateBranchNet, ["a.0"], {"b.0": "max"}),
        (
            awkward.TwoWaysNet,
            ["last.0"],
            {"a.0": "values of the images", "b.0": "values of", "other.0": "values of"},
        ),
    ],
)
def test_what_networks_do_to_channels_is_exact_or_left_alone(
    build: type[nn.Module], pruned: list[str], left_alone: dict[str, str]
) -> None:
    if not pruned:
        with pytest.raises(NetworkError) as caught:
            _traced(build)
        assert all(reason in str(caught.value) for reason in left_alone.values())
        return
    network, groups = _traced(build)
    assert [group.name for group in groups] == pruned
    assert groups.left_alone.keys() == left_alone.keys()
    assert all(reason in groups.left_alone[name] for name, reason in left_alone.items())
    _is_exact(network, groups)


def test_a_gate_makes_no_residual_stream() -> None:
    network, groups = _traced(awkward.squeeze_excitation)
    names = [f"{block}.{layer}" for block in (1, 2) for layer in ("expand.0", "squeeze")]
    assert [group.name for group in groups] == names
    assert groups.left_alone == {"0.0": "several layers add to it (a residual stream)"}
    _is_exact(network, groups)
    assert groups.structure.flops([1] * len(groups)) <= 0.1 * groups.structure.dense_flops


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "mobilenet_v3_large", "mobilenet_v3_small", "regnet_y_800mf"]
)
def test_the_default_scope_reaches_a_tenth_of_gated_networks(name: str) -> None:
    network = build_network(f"torchvision:{name}", 10, (3, 32, 32))
    groups = trace_channel_groups(network, torch.rand(1, 3, 32, 32))
    assert groups.structure.flops([1] * len(groups)) <= 0.1 * groups.structure.dense_flops


def test_attention_is_left_alone_and_said() -> None:
    network, groups = _traced(awkward.AttentionNet)
    assert [group.name for group in groups] == ["wide"]
    assert "scaled_dot_product" in groups.left_alone["keys"]
    assert groups.left_alone["queries"] == "it runs through queries, whose weights are read besides"
    _is_exact(network, groups)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "densenet121"])
def test_networks_on_which_tracing_took_minutes_or_failed(name: str) -> None:
    network = randomise(build_network(f"torchvision:{name}", 10, (3, 32, 32)))
    groups = trace_channel_groups(network, torch.rand(1, 3, 32, 32))
    kept = half_kept(groups)
    images = images_for(groups, 2)
    with torch.no_grad():
        found = slim(network, groups, kept)(images)
    assert relative_error(found, masked_outputs(network, groups, kept, images)) <= 1e-4


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_swin_transformer_has_its_perceptrons_pruned() -> None:
    network = build_network("torchvision:swin_t", 10, (3, 32, 32))
    groups = trace_channel_groups(network, torch.rand(1, 3, 32, 32))
    assert {group.name.rpartition(".mlp.")[2] for group in groups} == {"0"}
    assert len(groups) == 12
    assert any("attn" in reason for reason in groups.left_alone.values())
    kept = half_kept(groups)
    images = images_for(groups, 2)
    with torch.no_grad():
        found = slim(network, groups, kept)(images)
    assert relative_error(found, masked_outputs(network, groups, kept, images)) <= 1e-5


def _trusted(network: nn.Module, groups: ChannelGroups) -> list[str]:
    sound, _ = sound_groups(network, torch.zeros(1, *_SHAPE), groups.groups)
    return [group.name for group in sound]


def test_the_check_of_groups_needs_no_luck_with_weights() -> None:
    network, groups = _traced(awkward.PlainListNet)
    assert _trusted(network, groups) == ["a.0", "b.0"]
    wrong = copy.deepcopy(groups.groups)
    for member in wrong[0].members:
        if member.axis == "in":
            member.channels[[0, 1]] = member.channels[[1, 0]]
    for head in (False, True):
        if head:  # outputs of zero, whatever the channels
            nn.init.zeros_(network.get_submodule("head").weight)
        sound, reasons = sound_groups(network, torch.zeros(1, *_SHAPE), wrong)
        assert [group.name for group in sound] == ["b.0"]
        assert "mixed" in reasons["a.0"]


class _Unread(nn.Module):
    """The outputs do not depend on what the layers in front compute."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.c = nn.Conv2d(3, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(x) + 0 * self.b(self.a(x))
        return self.head(x.mean((2, 3)))


def test_channels_that_nothing_depends_on_are_left_alone() -> None:
    _, groups = _traced(_Unread, "all")
    assert [group.name for group in groups] == ["c"]
    assert "do not depend" in groups.left_alone["a"]


class _Insists(nn.Module):
    """Numbers of one precision only, as users write them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x).relu()).relu().float().mean((2, 3)))


def test_networks_that_insist_on_float32_are_checked_in_it() -> None:
    network, groups = _traced(_Insists)
    assert [group.name for group in groups] == ["a", "b"]
    _is_exact(network, groups)


def test_what_is_scripted_is_left_alone_or_refused_in_one_sentence() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1))
    with pytest.raises(NetworkError, match=r"scripted.*before torch\.jit") as caught:
        _traced(lambda: torch.jit.script(layers))
    assert "\n" not in str(caught.value)
    last = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 10, 1), nn.Flatten(), nn.Linear(640, 10))
    network, groups = _traced(lambda: nn.Sequential(torch.jit.script(layers), last))
    assert [group.name for group in groups] == ["1.0", "1.1"]
    assert "scripted" in groups.left_alone["0"]
    _is_exact(network, groups)


class _Attends(nn.Module):
    """Attention by PyTorch's own layer, on 16 positions of 12 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.attention = nn.Conv2d(3, 12, 2, 2), nn.MultiheadAttention(12, 2)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).permute(2, 0, 1)
        return self.head(self.attention(x, x, x)[0].mean(0))


def test_attention_is_counted_as_by_hand() -> None:
    positions, width = 16, 12
    projections = 4 * positions * width * width  # queries, keys, values and outputs
    attention = 2 * positions * positions * width
    layers = positions * 12 * width + width * 10  # a stem of 2 x 2 x 3 weights, and the head
    found = count_flops(_Attends().eval(), torch.rand(1, *_SHAPE))
    assert found == 2 * (projections + attention + layers)


class _Loops(nn.Module):
    """Runs until a number that its images decide is small enough."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
        self.c = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        rest = x.abs().mean()
        x = self.b(self.a(x).relu())
        while float(rest) > 1.0:
            x, rest = self.c(x), rest / 2
        return self.head(x.mean((2, 3)))


def test_a_loop_that_other_values_never_end_is_not_followed_for_ever() -> None:
    network, groups = _traced(_Loops)
    assert [group.name for group in groups] == ["a"]
    assert "values of the images" in groups.left_alone["b"]
    _is_exact(network, groups)


@pytest.mark.parametrize(
    "build", [awkward.PlainListNet, awkward.BoundMethodNet, awkward.TwoNamesNet]
)
def test_no_reference_keeps_a_layer_that_was_replaced(build: type[nn.Module]) -> None:
    network, groups = _traced(build)
    slimmed = slim(network, groups, [np.arange(1)] * len(groups))
    ran: set[nn.Module] = set()
    handles = [
        module.register_forward_hook(lambda module, inputs, output: ran.add(module))
        for module in {*network.modules(), *slimmed.modules()}
    ]
    with torch.no_grad():
        slimmed(torch.rand(2, *_SHAPE))
    for handle in handles:
        handle.remove()
    names = ("a.0", "a.1", "b.0", "b.1", "head")
    assert {slimmed.get_submodule(name) for name in names} <= ran
    assert not {network.get_submodule(name) for name in names} & ran
