"""Layer adapters: served by exact type, so that no layer of the user's is taken for another."""

from __future__ import annotations

import pytest
import torch
from prunetune.models import slim, trace_channel_groups
from prunetune.models.calls import norms_after
from prunetune.models.inference.folding import fold_batchnorm
from prunetune.models.inference.fused import plan_inference
from prunetune.models.inference.precision import cast_network
from prunetune.models.layers import adapter_of
from prunetune.models.reductions.channels import kept_channels
from prunetune.models.repair.full import FULL, FullRepair
from torch import nn

from .networks import half_kept, images_for, random_kept, randomise, relative_error
from .own_layers import LayersOfOneOwn, StandardisedConv


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


def test_only_plain_layers_are_folded_cast_and_fused() -> None:
    torch.manual_seed(0)
    network = randomise(LayersOfOneOwn())
    images = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)
    norms = norms_after(network, images)
    assert norms == {"last": "last_norm"}
    with torch.no_grad():
        expected = network(images)
        folded = fold_batchnorm(cast_network(network, "fp32", torch.device("cpu")), norms)
        assert relative_error(folded(images), expected) <= 1e-5
        low = cast_network(network, "bf16", torch.device("cpu"))
        assert relative_error(low(images.bfloat16()).float(), expected) <= 0.05


def test_a_convolution_of_ones_own_is_not_fused() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        StandardisedConv(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
    )
    images = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)
    plan = plan_inference(network)
    assert plan is not None
    with torch.no_grad():
        fused = plan.prepare(cast_network(network, "fp32", torch.device("cpu")))
        assert relative_error(fused(images), network(images)) <= 1e-5


def test_only_plain_layers_are_repaired() -> None:
    torch.manual_seed(0)
    network = randomise(LayersOfOneOwn())
    images = torch.randn(32, 3, 8, 8)
    groups = trace_channel_groups(network, images[:1], "all")
    kept = half_kept(groups)
    channels = kept_channels(network, groups, kept)
    with torch.no_grad():
        slimmed = slim(network, groups, kept)
        repaired = FullRepair(network, images, {}, FULL).apply(slimmed, channels)
        expected = network(images)
        before = relative_error(slimmed(images), expected)
        assert relative_error(repaired(images), expected) < before
    own, dense = repaired.get_submodule("standardised"), network.get_submodule("standardised")
    assert torch.equal(own.get_parameter("weight"), dense.get_parameter("weight"))
