"""Reductions of ours pass their conformance check, and faulty ones are told what is wrong."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from prunetune.models import Candidate, ChannelsReduction, Decision, Reduction
from prunetune.models.reductions.sequence import Reductions
from prunetune.testing import check_reduction
from torch import nn

from .networks import OWN_NETWORKS, images_for, traced, traced_own


def _reduction(name: str = "SmallNet", seed: int = 0) -> tuple[ChannelsReduction, nn.Module]:
    network, groups = traced(name) if name == "resnet20" else traced_own(name)
    draw = np.random.default_rng(seed)
    orders = [draw.permutation(size) for size in groups.sizes]
    return ChannelsReduction(groups.groups, orders), network


@pytest.mark.parametrize("name", [*sorted(OWN_NETWORKS), "resnet20"])
def test_removing_channels_is_a_sound_reduction(name: str) -> None:
    reduction, network = _reduction(name)
    check_reduction(reduction, network, torch.rand(1, 3, 16, 16), count=4)


class _Faulty(ChannelsReduction):
    """Removes channels of SmallNet, and what a test overrides is wrong with it."""

    def __init__(self) -> None:
        _, groups = traced_own("SmallNet")
        super().__init__(groups.groups, [np.arange(size) for size in groups.sizes])


class _KeepsOneMore(_Faulty):
    def apply(self, network: nn.Module, values: Candidate) -> nn.Module:
        sizes = [each.size for each in self.decisions]
        more = tuple(min(value + 1, size) for value, size in zip(values, sizes, strict=True))
        return super().apply(network, more)


class _Overwrites(_Faulty):
    def apply(self, network: nn.Module, values: Candidate) -> nn.Module:
        network.get_submodule("linear").weight.mul_(0.5)
        return super().apply(network, values)


class _ChangesTheDenseNetwork(_Faulty):
    def apply(self, network: nn.Module, values: Candidate) -> nn.Module:
        reduced = copy.deepcopy(super().apply(network, values))
        reduced.get_submodule("linear").weight.mul_(0.5)
        return reduced


class _OfAnotherKind(_Faulty):
    @property
    def decisions(self) -> tuple[Decision, ...]:
        return (Decision("stem", "heads", 4),)


class _Nameless(_Faulty):
    kind = ""


@pytest.mark.parametrize(
    ("faulty", "sentence"),
    [
        (_KeepsOneMore, "does not give the outputs of its oracle"),
        (_Overwrites, "changes the network that it is given"),
        (_ChangesTheDenseNetwork, "keeps everything"),
        (_OfAnotherKind, "of the kind 'heads'"),
        (_Nameless, "has no kind"),
    ],
)
def test_what_is_wrong_is_said(faulty: type[_Faulty], sentence: str) -> None:
    network, _ = traced_own("SmallNet")
    with pytest.raises(AssertionError, match=sentence):
        check_reduction(faulty(), network, torch.rand(1, 3, 16, 16))


class _Scales(Reduction):
    """Multiplies the classifier by the value of its one decision; removes nothing."""

    kind = "scale"

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return (Decision("linear", self.kind, 2, smallest=0),)

    def apply(self, network: nn.Module, values: Candidate) -> nn.Module:
        scaled = copy.deepcopy(network)
        linear = scaled.get_submodule("linear")
        with torch.no_grad():
            linear.weight.mul_(values[0] / 2)
            linear.bias.mul_(values[0] / 2)
        return scaled

    def oracle(self, network: nn.Module, values: Candidate) -> nn.Module:
        return nn.Sequential(copy.deepcopy(network), _Times(values[0] / 2))


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_a_candidate_is_split_among_reductions_in_their_order() -> None:
    channels, network = _reduction()
    scales = _Scales()
    check_reduction(scales, network, torch.rand(1, 3, 16, 16))
    reductions = Reductions([channels, scales])
    space = reductions.space
    assert space.decisions == (*channels.decisions, *scales.decisions)
    assert space.of_kind("scale").tolist() == [len(space) - 1]
    widths = tuple(max(1, size // 2) for size in space.sizes[:-1])
    _, groups = traced_own("SmallNet")
    images = images_for(groups)
    with torch.inference_mode():
        slimmed = channels.apply(network, widths)(images)
        halved = reductions.apply(network, (*widths, 1))(images)
        assert torch.equal(halved, 0.5 * slimmed)
    kept = reductions.kept_channels(network, (*widths, 1))
    expected = channels.kept_channels(network, widths)
    assert kept.keys() == expected.keys()


@pytest.mark.parametrize("value", [0, 13])
def test_values_out_of_range_are_refused_by_the_space(value: int) -> None:
    channels, network = _reduction()
    reductions = Reductions([channels])
    dense = reductions.space.dense
    with pytest.raises(ValueError, match=rf"is {value}, not in 1\.\."):
        reductions.apply(network, (value, *dense[1:]))
    with pytest.raises(ValueError, match="values are needed"):
        reductions.kept_channels(network, dense[1:])
