"""Layer adapters: served by exact type, so that no layer of the user's is taken for another."""

from __future__ import annotations

from collections.abc import Callable

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


def _hook(layer: nn.Module) -> None:
    layer.register_forward_hook(lambda module, inputs, output: output.relu())


def _pre_hook(layer: nn.Module) -> None:
    layer.register_forward_pre_hook(lambda module, inputs: (inputs[0].relu(),))


def _new_forward(layer: nn.Module) -> None:
    plain = layer.forward
    layer.forward = lambda x: plain(x).relu()


_CHANGES: dict[str, Callable[[nn.Module], None]] = {
    "with forward hooks": _hook,
    "with forward hooks ": _pre_hook,
    "whose forward was replaced": _new_forward,
}


@pytest.mark.parametrize("change", _CHANGES)
@pytest.mark.parametrize("changed", ["0", "1", "2", "3"])
def test_a_layer_that_somebody_changed_is_not_taken_for_its_type(change: str, changed: str) -> None:
    torch.manual_seed(0)
    network = randomise(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Identity()),
            *(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
            *(nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10)),
        )
    )
    _CHANGES[change](network.get_submodule(changed))
    images = torch.randn(4, 3, 8, 8)
    groups = trace_channel_groups(network, images[:1], "all")
    if changed != "2":
        assert adapter_of(network.get_submodule(changed)) is None
        assert any(reason.endswith(change.strip()) for reason in groups.left_alone.values())
    cast = cast_network(network, "fp32", torch.device("cpu"))
    folded = fold_batchnorm(cast, norms_after(network, images))
    plan = plan_inference(folded)
    assert plan is not None
    with torch.no_grad():
        for run in (folded, plan.prepare(folded)):
            assert relative_error(run(images), network(images)) <= 1e-5


def test_a_network_whose_own_forward_was_replaced_is_not_traced() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    assert plan_inference(network) is not None
    _new_forward(network)
    assert plan_inference(network) is None


class _AddsToItsShortcut(nn.Module):
    """What is added to is read again afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x.add_(self.conv(x))
        return self.last(x)


def test_a_shortcut_that_is_overwritten_is_not_fused_away() -> None:
    torch.manual_seed(0)
    network = _AddsToItsShortcut()
    images = torch.randn(2, 3, 5, 5)
    plan = plan_inference(network)
    assert plan is not None
    with torch.no_grad():
        fused = plan.prepare(network)
        assert relative_error(fused(images), network(images)) <= 1e-5


class _ByKeyword(nn.Module):
    """Every layer is called by the name of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b, self.relu = nn.Conv2d(8, 12, 3, padding=1), nn.ReLU()
        self.linear = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(input=self.norm(input=self.a(input=x)))
        return self.linear(input=self.relu(input=self.b(input=x)).mean((2, 3)))


def test_layers_that_are_called_by_keyword_are_pruned_folded_and_repaired() -> None:
    torch.manual_seed(0)
    network = randomise(_ByKeyword())
    images = torch.randn(32, 3, 8, 8)
    groups = trace_channel_groups(network, images[:1], "inner")
    assert [group.name for group in groups] == ["a", "b"]
    norms = norms_after(network, images)
    assert norms == {"a": "norm"}
    kept = half_kept(groups)
    channels = kept_channels(network, groups, kept)
    with torch.no_grad():
        expected = network(images)
        folded = fold_batchnorm(network, norms)
        plan = plan_inference(folded)
        for run in (folded, *([] if plan is None else [plan.prepare(folded)])):
            assert relative_error(run(images), expected) <= 1e-5
        slimmed = slim(network, groups, kept)
        before = relative_error(slimmed(images), expected)
        repaired = FullRepair(network, images, {}, FULL).apply(slimmed, channels)
        assert relative_error(repaired(images), expected) < before


class _PadsItself(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))


class _Rectifies(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


@pytest.mark.parametrize("own", [_PadsItself, _Rectifies])
def test_a_convolution_with_a_forward_of_its_own_stays_as_it_is(own: type[nn.Conv2d]) -> None:
    torch.manual_seed(0)
    network = randomise(
        nn.Sequential(
            *(own(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10)),
        )
    )
    images = torch.randn(32, 3, 8, 8)
    norms = norms_after(network, images)
    assert norms == {"3": "4"}
    groups = trace_channel_groups(network, images[:1], "inner")
    kept = half_kept(groups)
    with torch.no_grad():
        expected = network(images)
        folded = fold_batchnorm(network, norms)
        assert relative_error(folded(images), expected) <= 1e-5
        slimmed = slim(network, groups, kept)
        channels = kept_channels(network, groups, kept)
        repaired = FullRepair(network, images, {}, FULL).apply(slimmed, channels)
        assert torch.isfinite(repaired(images)).all()


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
