"""Layer adapters: served by exact type, so that no layer of the user's is taken for another."""

from __future__ import annotations

import pytest
import torch
from prunetune.models import slim, trace_channel_groups
from prunetune.models.layers import adapter_of
from torch import nn

from .networks import images_for, random_kept, randomise
from .own_layers import LayersOfOneOwn


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d])
def test_a_subclass_has_no_adapter(kind: type[nn.Module]) -> None:
    sizes = (4, 4, 1) if kind is nn.Conv2d else (4, 4)
    assert adapter_of(kind(*sizes)) is not None
    assert adapter_of(type("Own", (kind,), {})(*sizes)) is None


def test_groups_that_run_through_layers_of_ones_own_are_left_alone() -> None:
    torch.manual_seed(0)
    network = randomise(LayersOfOneOwn())
    groups = trace_channel_groups(network, torch.rand(1, 3, 8, 8), "all")
    assert [group.name for group in groups] == ["last"]
    assert groups.left_alone == {
        "stem": "it runs through act, a BatchNormAct",
        "standardised": "it runs through standardised, a StandardisedConv",
    }
    images = images_for(groups)
    with torch.no_grad():
        slimmed = slim(network, groups, random_kept(groups, 0))
        assert slimmed(images).shape == network(images).shape
    assert slimmed.get_submodule("standardised") is network.get_submodule("standardised")
    # Its running statistics are re-estimated, so they must not be the dense network's.
    assert slimmed.get_submodule("act") is not network.get_submodule("act")
