"""The inference plan: the same outputs as the network it fuses, whatever the widths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prunetune.models import NETWORKS, slim
from prunetune.models.calls import norms_after
from prunetune.models.inference.folding import fold_batchnorm
from prunetune.models.inference.fused import plan_inference
from prunetune.models.inference.precision import cast_network
from torch import Tensor, nn

from .networks import (
    OWN_NETWORKS,
    images_for,
    random_kept,
    relative_error,
    traced,
    traced_own,
)

_CPU = torch.device("cpu")


def _channels_last(images: Tensor) -> Tensor:
    return images.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", [*sorted(NETWORKS), *sorted(OWN_NETWORKS)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_fused_candidate_gives_the_outputs_of_the_plain_one(name: str, seed: int) -> None:
    network, groups = traced(name) if name in NETWORKS else traced_own(name)
    images = _channels_last(images_for(groups))
    norms = norms_after(network, images)
    with torch.no_grad():
        plan = plan_inference(fold_batchnorm(cast_network(network, "fp32", _CPU), norms))
        assert plan is not None or name in OWN_NETWORKS
        if plan is None:
            return
        slimmed = cast_network(slim(network, groups, random_kept(groups, seed)), "fp32", _CPU)
        folded = fold_batchnorm(slimmed, norms)
        assert relative_error(plan.prepare(folded)(images), folded(images)) <= 1e-5


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 11])
def test_few_output_channels_are_computed_several_pixels_at_once(width: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 20, 3, padding=1)
    )
    plan = plan_inference(network)
    assert plan is not None
    prepared = plan.prepare(cast_network(network, "fp32", _CPU))
    with torch.no_grad():
        for size in (8, 7, 12):  # 7 columns cannot be cut into wide pixels
            images = _channels_last(torch.randn(2, 3, 8, size))
            assert relative_error(prepared(images), network(images)) <= 1e-5


def test_one_input_channel_gives_the_same_in_bf16() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten())
    cast = cast_network(network, "bf16", _CPU)
    plan = plan_inference(network)
    assert plan is not None
    images = _channels_last(torch.randn(64, 1, 8, 8).bfloat16())
    with torch.no_grad():
        fused, plain = plan.prepare(cast)(images), cast(images)
    torch.testing.assert_close(fused.float(), plain.float(), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 8, 13, 16])
@pytest.mark.parametrize("size", [4, 8, 16, 32])
def test_bf16_reads_nothing_that_earlier_tensors_left_behind(width: int, size: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(13, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 20, 3, padding=1)
    )
    plan = plan_inference(network)
    assert plan is not None
    images = _channels_last(torch.randn(8, 13, size, size))
    prepared = plan.prepare(cast_network(network, "bf16", _CPU))
    with torch.no_grad():
        expected = network(images)
        for left_behind in (3e38, -5.0, 1e3):
            for memory in [torch.full((size**5,), left_behind) for size in range(2, 17)]:
                del memory
            outputs = prepared(images.bfloat16()).float()
            assert relative_error(outputs, expected) <= 2e-2


def test_a_shortcut_computed_later_is_added() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.shortcut = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return torch.relu(y + self.shortcut(x) * 2)

    torch.manual_seed(0)
    network = Late()
    plan = plan_inference(network)
    assert plan is not None
    images = _channels_last(torch.randn(2, 4, 5, 5))
    with torch.no_grad():
        fused = plan.prepare(cast_network(network, "fp32", _CPU))(images)
        assert relative_error(fused, network(images)) <= 1e-5


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (2, 4, 1, 1), (2, 1, 5, 5), (4, 1, 1)])
def test_a_summand_that_is_broadcast_is_added_as_it_is(shape: tuple[int, ...]) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.shift = nn.Parameter(torch.randn(shape))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.conv(x) + self.shift)

    torch.manual_seed(0)
    network = Shifted()
    plan = plan_inference(network)
    assert plan is not None
    images = _channels_last(torch.randn(2, 4, 5, 5))
    with torch.no_grad():
        fused = plan.prepare(network)(images)
        assert relative_error(fused, network(images)) <= 1e-5


def test_control_flow_that_depends_on_data_is_left_alone() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) if x.sum() > 0 else x

    assert plan_inference(Branching()) is None


def test_preparing_changes_neither_the_candidate_nor_the_plan() -> None:
    network, groups = traced("resnet20")
    images = _channels_last(images_for(groups))
    norms = norms_after(network, images)
    with torch.no_grad():
        dense = fold_batchnorm(cast_network(network, "fp32", _CPU), norms)
        plan = plan_inference(dense)
        assert plan is not None
        expected = dense(images)
        half = [np.arange(group.size // 2) for group in groups]
        folded = fold_batchnorm(cast_network(slim(network, groups, half), "fp32", _CPU), norms)
        before = folded(images)
        plan.prepare(folded)(images)
        assert torch.equal(folded(images), before)
        assert relative_error(plan.prepare(dense)(images), expected) <= 1e-5


def test_candidates_share_what_was_compiled() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 20, 3))
    plan = plan_inference(network)
    assert plan is not None
    # torch.fx gives every graph module that it compiles a class of its own, and keeps its source.
    assert type(plan.prepare(network)) is type(plan.prepare(network))
