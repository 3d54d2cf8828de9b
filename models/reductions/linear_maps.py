"""The algebra of linear layers: two that follow each other are one.

A linear layer is taken for a convolution with a 1x1 kernel. With kernels u of the first and v of
the second layer, h[q] = sum_u A[u] x[s q + u - p] + a and y[r] = sum_v B[v] h[t r + v - o] + b are
y[r] = sum_w C[w] x[s t r + w - (p + s o)] + c with C[s v + u] += B[v] A[u] and
c = b + sum_v B[v] a. That is exact where the second layer pads nothing (o = 0). Elsewhere the
padding moves to the front: zeros around x take the place of zeros around h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..._compat import convolution_margins
from ..layers import averager_of, description, multiplies

__all__ = [
    "LinearMap",
    "joined",
    "joined_multiplications",
    "linear_map",
    "normalised",
    "obstacle_to_joining",
]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A convolution, or a linear layer as one with a 1x1 kernel.

    Attributes:
        weight: float [outputs, inputs of one convolution group, kernel height, width].
        bias: float [outputs].
        stride: Along height and width.
        padding: Zeros on each side of height and width.
        groups: Convolution groups.
        image: Whether it reads maps [n, C, H, W]; a linear layer reads [n, ..., C].
    """

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    image: bool = True

    @property
    def inputs(self) -> int:
        """Channels that it reads."""
        return self.weight.shape[1] * self.groups

    @property
    def multiplications(self) -> int:
        """For one place of the output map."""
        return self.weight.numel()

    def padded(self, more: Sequence[int]) -> LinearMap:
        """With so many more zeros on each side of height and width; negative for fewer."""
        height, width = self.padding
        return replace(self, padding=(height + more[0], width + more[1]))

    def scaled(self, scale: Tensor, shift: Tensor) -> LinearMap:
        """Followed by scale [outputs] and shift [outputs]."""
        return replace(
            self,
            weight=self.weight * scale.view(-1, 1, 1, 1),
            bias=self.bias * scale + shift,
        )

    def module(self) -> nn.Module:
        """A layer that computes it; it does not share the tensors."""
        outputs = self.weight.shape[0]
        layer: nn.Module
        # Making a layer draws weights, which must not move the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            if self.image:
                layer = nn.Conv2d(
                    self.inputs,
                    outputs,
                    (self.weight.shape[2], self.weight.shape[3]),
                    self.stride,
                    self.padding,
                    groups=self.groups,
                )
            else:
                layer = nn.Linear(self.inputs, outputs)
        weight = self.weight if self.image else self.weight.flatten(1)
        layer._parameters["weight"] = nn.Parameter(weight.clone(), requires_grad=False)
        layer._parameters["bias"] = nn.Parameter(self.bias.clone(), requires_grad=False)
        return layer.eval()


def linear_map(layer: Any) -> LinearMap:
    """A layer of exactly ``nn.Conv2d`` or ``nn.Linear``; see :func:`obstacle_to_joining`."""
    weight = layer.weight.detach()
    image = weight.dim() == 4
    kernel = weight if image else weight[..., None, None]
    if image and tuple(layer.dilation) != (1, 1):
        kernel = _spread(kernel, layer.dilation)
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    found = LinearMap(kernel, bias, image=image)
    if image:
        found = replace(
            found,
            stride=tuple(layer.stride),
            padding=_padding(layer) or (0, 0),
            groups=layer.groups,
        )
    return found


def normalised(layer: LinearMap, norm: nn.Module) -> LinearMap:
    """A map with the BatchNorm that follows it, in evaluation mode."""
    averager = averager_of(norm)
    scale = averager.scale(norm).detach()
    shift = averager.shift(norm).detach() - averager.mean(norm) * scale
    return layer.scaled(scale.to(layer.weight), shift.to(layer.weight))


def obstacle_to_joining(first: nn.Module, second: nn.Module) -> str | None:
    """Why two layers, the second of which reads the first, cannot become one; None if they can.

    Args:
        first: Any layer.
        second: Any layer.
    """
    for layer in (first, second):
        if not multiplies(layer):
            return f"{description(layer)} is not known to be linear"
        if isinstance(layer, nn.Conv2d):
            if _padding(layer) is None:
                return "it pads unevenly"
            if layer.padding_mode != "zeros" and any(_padding(layer) or ()):
                return f"it pads with {layer.padding_mode} values"
    if type(first) is not type(second):
        return "one reads maps and the other vectors"
    return None


def joined(first: LinearMap, second: LinearMap) -> LinearMap:
    """One map that computes the second one of the first; see the module's formula.

    Args:
        first: A map.
        second: A map of as many input channels as the first has outputs, both of images or neither.
    """
    groups = _common_groups(first, second)
    left, right = _in_groups(first, groups), _in_groups(second, groups)
    (height, width), (tall, wide) = left.shape[-2:], right.shape[-2:]
    down, across = first.stride
    size = (down * (tall - 1) + height, across * (wide - 1) + width)
    kernel = left.new_zeros(groups, right.shape[1], left.shape[2], *size)
    for row in range(tall):
        for column in range(wide):
            product = torch.einsum("gom,gmihw->goihw", right[..., row, column], left)
            top, start = row * down, column * across
            kernel[..., top : top + height, start : start + width] += product
    constant = torch.einsum("gomhw,gm->go", right, first.bias.view(groups, -1)).reshape(-1)
    return LinearMap(
        kernel.flatten(0, 1),
        second.bias + constant,
        stride=(down * second.stride[0], across * second.stride[1]),
        padding=(
            first.padding[0] + down * second.padding[0],
            first.padding[1] + across * second.padding[1],
        ),
        groups=groups,
        image=first.image,
    )


def joined_multiplications(first: LinearMap, second: LinearMap) -> int:
    """What :func:`joined` multiplies for one place of its output map."""
    kernel = [
        step * (after - 1) + before
        for step, before, after in zip(
            first.stride, first.weight.shape[2:], second.weight.shape[2:], strict=True
        )
    ]
    inputs = first.inputs // _common_groups(first, second)
    return second.weight.shape[0] * inputs * kernel[0] * kernel[1]


def _common_groups(first: LinearMap, second: LinearMap) -> int:
    """As many convolution groups as the joined map can have."""
    if first.groups == second.groups:
        return first.groups
    one, other = sorted((first.groups, second.groups))
    # Where one layer's groups lie inside the other's, the larger ones remain.
    return one if other % one == 0 else 1


def _in_groups(layer: LinearMap, groups: int) -> Tensor:
    """The weight as [groups, outputs, inputs, height, width], with zeros between finer groups."""
    finer = layer.groups // groups
    outputs, inputs, *kernel = layer.weight.shape
    blocks = layer.weight.view(groups, finer, outputs // layer.groups, inputs, *kernel)
    if finer == 1:
        return blocks[:, 0]
    whole = layer.weight.new_zeros(groups, finer, outputs // layer.groups, finer, inputs, *kernel)
    index = torch.arange(finer)
    whole[:, index, :, index] = blocks.transpose(0, 1)
    return whole.reshape(groups, outputs // groups, finer * inputs, *kernel)


def _spread(kernel: Tensor, dilation: Sequence[int]) -> Tensor:
    """The kernel without dilation: zeros are written where a dilated one skips."""
    down, across = dilation
    height, width = kernel.shape[2:]
    whole = kernel.new_zeros(*kernel.shape[:2], down * (height - 1) + 1, across * (width - 1) + 1)
    whole[:, :, ::down, ::across] = kernel
    return whole


def _padding(layer: nn.Conv2d) -> tuple[int, int] | None:
    """Padding of height and width; None where the two sides differ."""
    left, right, top, bottom = convolution_margins(layer)
    return (top, left) if left == right and top == bottom else None
