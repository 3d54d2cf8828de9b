"""Folding and casting: the same outputs, and the source as it was."""

from __future__ import annotations

import pytest
import torch
from prunetune.models import NETWORKS, slim
from prunetune.models.calls import norms_after
from prunetune.models.inference.folding import fold_batchnorm
from prunetune.models.inference.precision import cast_network, resolve_precision
from torch import Tensor, nn

from .networks import (
    OWN_NETWORKS,
    images_for,
    random_kept,
    randomise,
    relative_error,
    same_weights,
    traced,
    traced_own,
    weights_of,
)

_CPU = torch.device("cpu")


@pytest.mark.parametrize("name", [*sorted(NETWORKS), *sorted(OWN_NETWORKS)])
def test_folding_changes_no_output(name: str) -> None:
    network, groups = traced(name) if name in NETWORKS else traced_own(name)
    images = images_for(groups)
    before = weights_of(network)
    norms = norms_after(network, images)
    for each in (network, slim(network, groups, random_kept(groups, 1))):
        folded = fold_batchnorm(each, norms)
        with torch.no_grad():
            assert relative_error(folded(images), each(images)) <= 1e-5
    assert same_weights(network, before)
    left = [m for m in folded.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    if name in NETWORKS:
        assert not left


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # norm1 shares its input with the shortcut, and norm3 reads a sum.
        ("PreActivation", {"conv1": "norm2"}),
        # The shared convolution has two BatchNorm layers behind it.
        ("SharedLayers", {"first": "norm"}),
        # norm1 shares its input with the concatenation.
        ("DenseNetLike", {"conv2": "norm3"}),
        (
            "MobileLike",
            {
                "stem": "norm",
                "expand": "norm1",
                "depthwise": "norm2",
                "project": "norm3",
                "hidden": "hidden_norm",
            },
        ),
    ],
)
def test_batchnorm_belongs_to_a_layer_that_nobody_else_reads(
    name: str, expected: dict[str, str]
) -> None:
    network, groups = traced_own(name)
    assert norms_after(network, images_for(groups)) == expected


class _InPlaceBetween(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.other = nn.Conv2d(4, 4, 1)
        self.own = nn.BatchNorm2d(4, track_running_stats=False)
        self.linear = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        y = self.conv(x)
        y += 1
        return self.linear(self.own(self.other(self.norm(y))).mean(dim=(2, 3)))


def test_what_is_changed_in_place_or_has_no_statistics_is_not_folded() -> None:
    network = _InPlaceBetween().eval()
    assert norms_after(network, torch.rand(2, 3, 8, 8)) == {}


class _RootParameters(nn.Module):
    """Parameters and buffers of the network itself, as for normalising its input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(1, 3, 1, 1))
        self.register_buffer("order", torch.tensor([2, 1, 0]))
        self.scale = nn.Parameter(torch.rand(1, 3, 1, 1))
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = ((x - self.mean) * self.scale)[:, self.order]
        return self.linear(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_casting_leaves_the_source_and_shares_no_memory(precision: str) -> None:
    torch.manual_seed(0)
    networks = [traced_own(name)[0] for name in sorted(OWN_NETWORKS)]
    for network in (*networks, randomise(_RootParameters())):
        before = weights_of(network)
        cast = cast_network(network, precision, _CPU)  # type: ignore[arg-type]
        images = torch.randn(4, 3, 16, 16)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        with torch.no_grad():
            found, expected = cast(images.to(dtype)), network(images)
        assert relative_error(found.float(), expected) <= (0.1 if precision == "bf16" else 1e-5)
        for name, value in cast.state_dict().items():
            parent = cast.get_submodule(name.rpartition(".")[0])
            own = isinstance(parent, nn.BatchNorm1d | nn.BatchNorm2d)
            if value.is_floating_point():
                assert value.dtype == (torch.float32 if own else dtype)
            value.zero_()
        assert same_weights(network, before)


def test_folding_a_cast_network_keeps_its_precision() -> None:
    network, groups = traced_own("SmallNet")
    images = images_for(groups)
    cast = cast_network(network, "bf16", _CPU)
    folded = fold_batchnorm(cast, norms_after(network, images))
    assert {parameter.dtype for parameter in folded.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        found = folded(images.bfloat16()).float()
        assert relative_error(found, network(images)) <= 0.1


def test_what_was_asked_for_is_what_is_used() -> None:
    assert resolve_precision("fp32", _CPU) == "fp32"
    assert resolve_precision("bf16", _CPU) == "bf16"
    assert resolve_precision("auto", _CPU) in ("fp32", "bf16")
