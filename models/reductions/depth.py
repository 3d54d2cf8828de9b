"""Removing activations: what is linear then, and follows each other, becomes one layer."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..copying import shallow_copy
from ..hooks import hear_inputs
from ..layers import own_copy
from ..space import Candidate, Decision
from .activations import Activation, Join
from .linear_maps import LinearMap, joined, joined_multiplications, linear_map, normalised
from .reduction import Reduction

__all__ = ["DepthReduction", "Line", "fit_lines"]


@dataclass(frozen=True, eq=False)
class Line:
    """The straight line that takes an activation's place, per channel.

    Attributes:
        slope: float64 [C].
        offset: float64 [C].
    """

    slope: Tensor
    offset: Tensor


class DepthReduction(Reduction):
    """One decision per activation: 1 keeps it, 0 makes it linear.

    Layers around a linear activation are merged into the second of them, and what is left of the
    first is an identity, where that takes no more multiplications than before; elsewhere they stay
    two. Where the second one pads, padding moves to the front (see ``linear_maps``), which is what
    the oracle computes, too.

    Args:
        activations: The activations of a network.
        lines: What takes their place, by name; an activation without one becomes the identity, and
            so does one whose line no layer before it can take over.
    """

    kind: ClassVar[str] = "activation"

    def __init__(
        self, activations: Sequence[Activation], lines: Mapping[str, Line] | None = None
    ) -> None:
        self._activations = tuple(activations)
        self._lines = dict(lines or {})

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """One per activation, of size 1."""
        return tuple(Decision(each.name, self.kind, 1, 0) for each in self._activations)

    def apply(self, network: nn.Module, values: Candidate) -> nn.Module:
        """See :class:`DepthReduction`."""
        straight = self._straightened(network, values)
        maps, joins = self._merged(straight, values)
        replacements: dict[str, nn.Module] = {name: each.module() for name, each in maps.items()}
        for join in joins:
            for name in (join.first, join.norm):
                if name is not None:
                    replacements[name] = nn.Identity()
        return shallow_copy(straight, lambda name, module: replacements.get(name))

    def oracle(self, network: nn.Module, values: Candidate) -> nn.Module:
        """The linear activations as they are, and padding moved to the front; nothing merged."""
        slow = copy.deepcopy(self._straightened(network, values))
        _, joins = self._merged(slow, values)
        # Of every layer that was merged into another: the first layer of its chain, and how far
        # apart that one's inputs are that lead to neighbouring outputs of this one.
        begins: dict[str, tuple[str, tuple[int, ...]]] = {}
        for join in joins:
            first, second = slow.get_submodule(join.first), slow.get_submodule(join.second)
            if not (isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)):
                continue
            head, before = begins.get(join.first, (join.first, (1, 1)))
            steps = tuple(a * int(b) for a, b in zip(before, first.stride, strict=True))
            begins[join.second] = head, steps
            front, inner = linear_map(slow.get_submodule(head)), linear_map(second)
            moved = [step * pad for step, pad in zip(steps, inner.padding, strict=True)]
            slow.set_submodule(head, front.padded(moved).module())
            slow.set_submodule(join.second, inner.padded([-pad for pad in inner.padding]).module())
        return slow

    def _linear(self, values: Candidate) -> Iterator[Activation]:
        """The activations that a candidate makes linear, in the order of execution."""
        for activation, value in zip(self._activations, values, strict=True):
            if not value:
                yield activation

    def _straightened(self, network: nn.Module, values: Candidate) -> nn.Module:
        """The network with lines for activations, sharing everything else."""
        replacements: dict[str, nn.Module] = {}
        for activation in self._linear(values):
            replacements[activation.name] = nn.Identity()
            line = self._lines.get(activation.name)
            if line is not None and activation.source is not None:
                source = own_copy(network.get_submodule(activation.source))
                _follow_with(source, line)
                replacements[activation.source] = source
        return shallow_copy(network, lambda name, module: replacements.get(name))

    def _merged(
        self, network: nn.Module, values: Candidate
    ) -> tuple[dict[str, LinearMap], list[Join]]:
        """The merged maps by the name of the layer that they replace, and what was merged."""
        maps: dict[str, LinearMap] = {}
        joins: list[Join] = []
        for activation in self._linear(values):
            join = activation.join
            if join is None:
                continue
            first = maps.get(join.first) or linear_map(network.get_submodule(join.first))
            if join.norm is not None:
                first = normalised(first, network.get_submodule(join.norm))
            second = linear_map(network.get_submodule(join.second))
            before, after = join.places
            apart = before * first.multiplications + after * second.multiplications
            if after * joined_multiplications(first, second) <= apart:
                maps.pop(join.first, None)
                maps[join.second] = joined(first, second)
                joins.append(join)
        return maps, joins


def fit_lines(
    network: nn.Module, activations: Sequence[Activation], images: Tensor, batch_size: int = 100
) -> dict[str, Line]:
    """The straight lines that come closest to activations over what they see, per channel.

    Least squares over images and places: the slope is cov(z, a(z)) / var(z). Using it in place of
    the identity, which the papers on depth take, is our choice.

    Args:
        network: The dense network, in evaluation mode.
        activations: Those that are meant; such without a ``source`` are left out.
        images: float32 [N, C, H, W].
        batch_size: Images per forward pass.

    Returns:
        By the activation's name.
    """
    sums: dict[str, Tensor] = {}
    handles = []
    for each in activations:
        if each.source is None:
            continue
        vectors = isinstance(network.get_submodule(each.source), nn.Linear)

        def add(
            module: nn.Module,
            inputs: Tensor,
            name: str = each.name,
            vectors: bool = vectors,
        ) -> None:
            # Read before the activation runs, which may work in place.
            before = _by_channel(inputs, vectors)
            after = _by_channel(module.forward(inputs.clone()), vectors)
            ones = torch.ones_like(before)
            found = torch.stack([ones, before, after, before * before, before * after]).sum(dim=2)
            sums[name] = sums[name] + found if name in sums else found

        handles.append(hear_inputs(network.get_submodule(each.name), add))
    try:
        with torch.inference_mode():
            for batch in images.split(batch_size):
                network(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: _line(found) for name, found in sums.items()}


def _by_channel(values: Tensor, vectors: bool) -> Tensor:
    """float64 [C, places] of a map [n, C, ...], or of vectors [n, ..., C]."""
    moved = values.movedim(-1, 0) if vectors else values.movedim(1, 0)
    return moved.flatten(1).double()


def _line(sums: Tensor) -> Line:
    count, first, second, square, product = sums
    mean, target = first / count, second / count
    variance = square / count - mean * mean
    covariance = product / count - mean * target
    slope = torch.where(variance > 0, covariance / variance.clamp(min=1e-300), 0.0)
    return Line(slope, target - slope * mean)


def _follow_with(layer: nn.Module, line: Line) -> None:
    """Let a layer of its own scale and shift what it writes, in place."""
    weight, bias = layer._parameters["weight"], layer._parameters["bias"]
    assert weight is not None and bias is not None
    slope, offset = line.slope.to(weight), line.offset.to(weight)
    with torch.no_grad():
        weight.mul_(slope.view(-1, *(1,) * (weight.dim() - 1)))
        bias.mul_(slope).add_(offset)
