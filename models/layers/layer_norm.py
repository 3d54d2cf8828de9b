"""LayerNorm of vectors: all channels are normalised together."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from .adapter import Channels, LayerAdapter, LayerFacts, own_copy, register

__all__ = ["LayerNormAdapter"]


class LayerNormAdapter(LayerAdapter[nn.LayerNorm]):
    """A slim LayerNorm takes mean and variance of the channels that are left.

    These are not the dense network's, so removing a channel changes the others, and repair has more
    to do than behind BatchNorm. The slow oracle takes them over the kept channels too.
    """

    channel_axis = -1

    def obstacle(self, layer: nn.LayerNorm) -> str | None:
        """It must normalise the last axis alone, by a scale and a shift or by neither."""
        if len(layer.normalized_shape) != 1:
            return "a LayerNorm over more than one axis"
        if layer.elementwise_affine and layer._parameters.get("bias") is None:
            return "a LayerNorm that scales and does not shift"
        return None

    def channels(self, layer: nn.LayerNorm) -> tuple[int, int]:
        """What it reads is what it writes."""
        size = math.prod(layer.normalized_shape)
        return size, size

    def facts(self, layer: nn.LayerNorm) -> LayerFacts | None:
        """Its row of a cost table; none if it must be left alone."""
        if self.obstacle(layer) is not None:
            return None
        return LayerFacts(kind="norm", bias=layer.elementwise_affine)

    def slim(
        self, layer: nn.LayerNorm, outputs: Channels | None, inputs: Channels | None
    ) -> nn.LayerNorm:
        """A LayerNorm of fewer channels."""
        slimmed = own_copy(layer, outputs)
        if outputs is not None:
            slimmed.normalized_shape = (len(outputs),)
        return slimmed

    def ignore(
        self, layer: nn.LayerNorm, outputs: Channels | None, inputs: Channels | None
    ) -> nn.Module:
        """A LayerNorm that leaves removed channels out of its mean and variance."""
        return layer if outputs is None else _PartialLayerNorm(layer, outputs)

    def map_size(self, values: Tensor) -> tuple[int, int]:
        """All positions of ``values`` [n, ..., C] count as height."""
        return math.prod(values.shape[1:-1]), 1

    def blank_input(self, layer: nn.LayerNorm, channels: int, size: tuple[int, int]) -> Tensor:
        """Zeros [1, positions, C]."""
        return torch.zeros(1, size[0], channels)


class _PartialLayerNorm(nn.Module):
    """Normalises some channels over themselves, and writes zeros for the others."""

    def __init__(self, layer: nn.LayerNorm, removed: Channels) -> None:
        super().__init__()
        kept = np.setdiff1d(np.arange(layer.normalized_shape[0]), removed)
        self._kept = torch.from_numpy(kept)
        self._layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [n, ..., C] to values of the same shape."""
        part = x[..., self._kept]
        variance, mean = torch.var_mean(part, dim=-1, keepdim=True, unbiased=False)
        part = (part - mean) / (variance + self._layer.eps).sqrt()
        if self._layer.elementwise_affine:
            part = part * self._layer.weight[self._kept] + self._layer.bias[self._kept]
        return torch.zeros_like(x).index_copy(-1, self._kept, part)


register(nn.LayerNorm, LayerNormAdapter())
