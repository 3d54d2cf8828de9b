"""Convolutions of images, grouped and depthwise ones too."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..._compat import convolution_margins
from .adapter import Channels, LayerFacts, adapter_of, register
from .roles import MultiplyingAdapter
from .sites import Sites
from .weighted import scale_columns, slim_weights

__all__ = ["ConvolutionAdapter", "is_depthwise"]


def is_depthwise(module: nn.Module) -> bool:
    """Whether a convolution filters every channel by itself, one output each."""
    return (
        type(module) is nn.Conv2d
        and isinstance(adapter_of(module), ConvolutionAdapter)
        and module.groups > 1
        and module.groups == module.in_channels == module.out_channels
    )


class ConvolutionAdapter(MultiplyingAdapter[nn.Conv2d]):
    """Of any kernel, stride, padding, dilation and grouping."""

    def channels(self, layer: nn.Conv2d) -> tuple[int, int]:
        """Output and input channels, over all convolution groups."""
        return layer.out_channels, layer.in_channels

    def facts(self, layer: nn.Conv2d) -> LayerFacts:
        """Its row of a cost table."""
        depthwise = is_depthwise(layer)
        return LayerFacts(
            kind="depthwise" if depthwise else "conv",
            kernel=(layer.kernel_size[0], layer.kernel_size[1]),
            stride=int(layer.stride[0]),
            groups=1 if depthwise else layer.groups,
            bias=layer.bias is not None,
        )

    def slim(
        self, layer: nn.Conv2d, outputs: Channels | None, inputs: Channels | None
    ) -> nn.Conv2d:
        """A convolution of fewer channels, in as many groups unless it is depthwise."""
        columns = None if inputs is None else _within_group(layer, inputs)
        slimmed = slim_weights(layer, outputs, columns)
        slimmed.out_channels = slimmed.weight.shape[0]
        if is_depthwise(layer):
            slimmed.groups = slimmed.out_channels
        slimmed.in_channels = slimmed.weight.shape[1] * slimmed.groups
        return slimmed

    def ignore(
        self, layer: nn.Conv2d, outputs: Channels | None, inputs: Channels | None
    ) -> nn.Module:
        """Zero the weights of inputs that are removed."""
        if inputs is not None:
            with torch.no_grad():
                layer.weight[:, _within_group(layer, inputs)] = 0
        return layer

    def scale_inputs(
        self, layer: nn.Conv2d, inputs: Channels, factors: NDArray[np.float64]
    ) -> None:
        """Scale the kernels that read these channels."""
        scale_columns(layer, inputs % layer.weight.shape[1], factors)

    def parts(self, layer: nn.Conv2d) -> int:
        """Convolution groups."""
        return layer.groups

    def patches(self, layer: nn.Conv2d, inputs: Tensor, sites: Sites) -> Tensor:
        """What lies under the kernel, of ``inputs`` [n, C, H, W]."""
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        padded = functional.pad(inputs, convolution_margins(layer), mode=mode)
        height, width = padded.shape[2:]
        rows_first = padded.permute(0, 2, 3, 1).reshape(-1, padded.shape[1])
        (kernel_height, kernel_width), (down, across) = layer.kernel_size, layer.dilation
        corner = (sites.image * height + sites.row * layer.stride[0]) * width
        corner = corner + sites.column * layer.stride[1]
        steps = [
            row * down * width + column * across
            for row in range(kernel_height)
            for column in range(kernel_width)
        ]
        places = corner[:, None] + torch.tensor(steps, device=corner.device)
        return rows_first.index_select(0, places.flatten()).view(len(corner), len(steps), -1)

    def outputs_at(self, values: Tensor, sites: Sites) -> Tensor:
        """Vectors of ``values`` [n, C, H, W]."""
        return values[sites.image, :, sites.row, sites.column]

    def makes_channels(self, layer: nn.Conv2d) -> bool:
        """True, but for a depthwise convolution."""
        return not is_depthwise(layer)


def _within_group(layer: nn.Conv2d, channels: Channels) -> Channels:
    """Input channels as indices of the weight's second axis, the same in every group."""
    if layer.groups > 1:
        return np.unique(channels % (layer.in_channels // layer.groups))
    return channels


register(nn.Conv2d, ConvolutionAdapter())
