"""Whether channel groups are what they seem: slim networks against the slow oracle."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .groups import ChannelGroup
from .reductions.channels import KeptUnits, ignore_removed, slim

__all__ = ["sound_groups"]

_RANDOM_SUBSETS, _IMAGES = 3, 2
# Differences count in comparison to what removing channels changes at all.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2}
_ROUNDING = {torch.float64: 1e-11, torch.float32: 1e-5}


def sound_groups(
    network: nn.Module, example_input: Tensor, groups: Sequence[ChannelGroup]
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Leave out groups whose slim network is not the dense one that ignores removed channels.

    What a network computes may hide mistakes, as a classifier of zeros does. So all weights are
    drawn anew, in float64, and several subsets of channels are removed, most of them random. A
    group on which the output does not depend cannot be checked and is left out, too.

    Args:
        network: The dense network; it is not changed.
        example_input: One image that the network accepts, [1, C, H, W].
        groups: The groups to check.

    Returns:
        The groups that hold, together as well as alone, and why each of the others does not, by
        name.
    """
    probe = _Probe.of(network, example_input)
    if probe is None:
        return [], {each.name: "the network does not run with other weights" for each in groups}
    held = probe.hold(list(groups))
    moving = probe.moving(held)
    reasons = {}
    for group in groups:
        if group not in held:
            reasons[group.name] = "its channels are mixed in a way we cannot trace"
        elif group not in moving:
            reasons[group.name] = "the outputs of the network do not depend on its channels"
    return moving, reasons


@dataclass(frozen=True, eq=False)
class _Probe:
    """A network with other weights.

    Attributes:
        network: The network.
        images: Images for it, of its type.
        outputs: What it makes of them.
    """

    network: nn.Module
    images: Tensor
    outputs: Tensor

    @classmethod
    def of(cls, network: nn.Module, example_input: Tensor) -> _Probe | None:
        """In float64, or in float32 where a network insists on it; None where neither runs."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn((_IMAGES, *example_input.shape[1:]), generator=generator)
        with torch.inference_mode(False):
            for dtype in (torch.float64, torch.float32):
                other = copy.deepcopy(network).to(dtype)
                _draw_weights(other, generator)
                try:
                    with torch.no_grad():
                        outputs = other(images.to(dtype))
                except Exception:
                    continue
                return cls(other, images.to(dtype), outputs)
        return None

    def hold(self, groups: list[ChannelGroup]) -> list[ChannelGroup]:
        """Those of some groups that are sound, alone and together."""
        if not groups or self._is_sound(groups):
            return groups
        if len(groups) == 1:
            return []
        middle = len(groups) // 2
        held, more = self.hold(groups[:middle]), self.hold(groups[middle:])
        if not held or not more or self._is_sound(held + more):
            return held + more
        for group in more:
            if self._is_sound([*held, group]):
                held.append(group)
        return held

    def moving(self, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
        """Those of some groups on which the outputs depend.

        Gradients show it for all groups at once; where they do not, channels are removed.
        """
        weights = [
            self.network.get_submodule(group.name).get_parameter("weight") for group in groups
        ]
        slopes: Sequence[Tensor | None]
        try:
            with torch.inference_mode(False), torch.enable_grad():
                for weight in weights:
                    weight.requires_grad_(True)
                outputs = self.network(self.images)
                slopes = torch.autograd.grad(outputs.square().sum(), weights, allow_unused=True)
        except Exception:  # it computes something that has no gradient
            slopes = [None] * len(groups)
        return [
            group
            for group, slope in zip(groups, slopes, strict=True)
            if (slope is not None and bool(slope.abs().max() > 0)) or self._reacts(group)
        ]

    def _reacts(self, group: ChannelGroup) -> bool:
        """Whether removing some of a group's channels changes the outputs."""
        units = np.arange(group.size, dtype=np.int64)
        halves = units[: len(units) // 2], units[len(units) // 2 :]
        return any(
            self._change(self._run(ignore_removed(self.network, [group], [kept]))) > 0
            for kept in halves
        )

    def _is_sound(self, groups: Sequence[ChannelGroup]) -> bool:
        return all(self._agrees(groups, kept) for kept in _subsets(groups))

    def _agrees(self, groups: Sequence[ChannelGroup], kept: KeptUnits) -> bool:
        """Whether a slim network equals the one that ignores what it lacks."""
        try:
            slimmed = self._run(slim(self.network, groups, kept))
            masked = self._run(ignore_removed(self.network, groups, kept))
        except Exception:  # shapes that do not fit, or whatever the network says of them
            return False
        if slimmed.shape != masked.shape:
            return False
        dtype = self.outputs.dtype
        error = float((slimmed - masked).abs().max())
        return error <= _TOLERANCE[dtype] * self._change(masked) + self._rounding

    def _run(self, network: nn.Module) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            outputs: Tensor = network(self.images)
        return outputs

    def _change(self, outputs: Tensor) -> float:
        """The largest difference to the outputs of the whole network; 0 where it is rounding."""
        change = float((outputs - self.outputs).abs().max())
        return change if change > self._rounding else 0.0

    @property
    def _rounding(self) -> float:
        return _ROUNDING[self.outputs.dtype] * float(self.outputs.abs().max())


def _subsets(groups: Sequence[ChannelGroup]) -> Iterator[KeptUnits]:
    """Of every group some units, at least one and not all of them.

    Halves of the channels stay equally long in some random subsets, and so does what is every other
    channel in some that leave out the end. So one subset begins later, and one ends earlier.
    """
    yield [np.arange(1, group.size, dtype=np.int64) for group in groups]
    yield [np.arange(-(-group.size // 2), dtype=np.int64) for group in groups]
    draw = np.random.default_rng(0)
    for _ in range(_RANDOM_SUBSETS):
        yield [
            np.sort(draw.permutation(group.size)[: draw.integers(1, group.size)]).astype(np.int64)
            for group in groups
        ]


def _draw_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Weights that keep values at about one size (He et al. 2015, equation 10), and no zeros."""

    def uniform(like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=generator, dtype=like.dtype) + 0.5

    def normal(like: Tensor, size: float) -> Tensor:
        return size * torch.randn(like.shape, generator=generator, dtype=like.dtype)

    with torch.no_grad():
        for name, weight in network.named_parameters():
            if not weight.is_floating_point():
                continue
            if weight.dim() > 1:
                inputs = max(1, weight[0].numel())
                weight.copy_(normal(weight, (2 / inputs) ** 0.5))
            else:
                weight.copy_(normal(weight, 0.3) if name.endswith("bias") else uniform(weight))
        for name, value in network.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(normal(value, 0.2))
            elif name.endswith("running_var"):
                value.copy_(uniform(value))
