"""Activation memory by the table against what is really alive in a forward pass."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from prunetune.errors import NetworkError
from prunetune.models.costs.activation_memory import (
    ActivationTable,
    measure_peak_activations,
    tabulate_activations,
)
from prunetune.models.coupling import trace_channel_groups
from prunetune.models.reductions.channels import slim
from torch import Tensor, nn

from .networks import images_for, random_kept, traced, traced_own, widths_of


def _images(size: int = 32) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def _by_hand() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), nn.Flatten()).eval()


def test_a_network_by_hand_has_the_peak_of_pen_and_paper() -> None:
    # 16 pixels of 4 bytes: the image (3 channels) stays alive, and a convolution needs its input
    # and its output.
    assert measure_peak_activations(_by_hand(), _images(4)) == 16 * 4 * (3 + 8 + 4)
    groups = trace_channel_groups(_by_hand(), _images(4))
    table = tabulate_activations(_by_hand(), _images(4), groups)
    widths = np.arange(1, 9)[:, None]
    expected = 64 * (3 + widths[:, 0] + 4)
    np.testing.assert_array_equal(table.peak(widths), expected)


@pytest.mark.parametrize("name", ["resnet20", "DenseNetLike", "MobileLike", "GroupedNet"])
@pytest.mark.parametrize("scope", ["inner", "all"])
def test_the_table_says_what_slim_networks_really_keep_alive(name: str, scope: str) -> None:
    shape = (3, 16, 16)
    network, groups = traced(name, scope, shape) if name.islower() else traced_own(name, scope)
    image = images_for(groups, 1)
    table = tabulate_activations(network, image, groups)
    assert table == ActivationTable.from_dict(json.loads(json.dumps(table.to_dict())))
    kept = [random_kept(groups, seed) for seed in range(3)]
    peaks = table.peak(np.array([widths_of(each) for each in kept]))
    measured = [measure_peak_activations(slim(network, groups, each), image) for each in kept]
    np.testing.assert_array_equal(peaks, measured)
    assert table.peak([groups.sizes])[0] == measure_peak_activations(network, image)


def test_what_is_known_of_the_peak_rises_to_the_peak() -> None:
    table = ActivationTable(((4, 0, 2), (0, 5, 1), (0, 0, 0)), (10, 0, 30))
    widths = np.array([[8, 2, 3], [1, 1, 1], [2, 9, 1]])
    np.testing.assert_array_equal(table.peak(widths), [48, 30, 46])
    np.testing.assert_array_equal(table.known_peaks(widths)[0], [42, 42, 48])
    assert (np.diff(table.known_peaks(widths), axis=1) >= 0).all()
    np.testing.assert_array_equal(table.known_peaks(widths)[:, -1], table.peak(widths))


class _Correlated(nn.Module):
    """Makes a matrix of its channels by themselves, which is not linear in their number."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        rows = x.flatten(2)
        scale = (rows @ rows.transpose(1, 2)).mean()
        return self.last(x * scale).mean((2, 3))


def test_a_network_without_a_table_is_refused() -> None:
    plain = trace_channel_groups(_by_hand(), _images(4))
    (group,) = plain.groups
    names = {"0": "first", "1": "last"}
    members = tuple(replace(each, layer=names[each.layer]) for each in group.members)
    groups = replace(plain, groups=(replace(group, name="first", members=members),))
    with pytest.raises(NetworkError, match="not linear"):
        tabulate_activations(_Correlated().eval(), _images(4), groups)
