"""Input patches of a layer: the vectors that its weights are multiplied with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..._compat import convolution_margins

__all__ = ["Sites", "channels_at", "layer_patches", "patches_by_position", "sample_sites"]


@dataclass(frozen=True)
class Sites:
    """Some places of a batch of output maps, in no particular order.

    Attributes:
        image: Index of the image, int64 [rows].
        row: Row of the output map, int64 [rows].
        column: Column of the output map, int64 [rows].
    """

    image: Tensor
    row: Tensor
    column: Tensor


def sample_sites(
    images: int, size: tuple[int, int], rows: int, generator: torch.Generator
) -> Sites:
    """Draw distinct places evenly over images and positions.

    Args:
        images: Images in the batch.
        size: Height and width of the output map; (1, 1) for a linear layer.
        rows: Places wanted; all places if there are fewer.
        generator: Source of randomness.
    """
    height, width = size
    total = images * height * width
    chosen = (
        torch.arange(total) if rows >= total else torch.randperm(total, generator=generator)[:rows]
    )
    return Sites(chosen // (height * width), chosen // width % height, chosen % width)


def patches_by_position(layer: nn.Conv2d | nn.Linear, inputs: Tensor, sites: Sites) -> Tensor:
    """The patches that a layer reads to compute its outputs at ``sites``.

    Args:
        layer: A convolution of any kernel, stride, padding, dilation and grouping, or a linear
            layer.
        inputs: Its input, float [n, C, H, W]; of a linear layer [n, ..., C].
        sites: Places of its output map.

    Returns:
        float [rows, kernel positions, C]; a linear layer's kernel has one position.
    """
    if isinstance(layer, nn.Linear):
        return _rows_of_linear(inputs, sites)[:, None]
    left, right, top, bottom = convolution_margins(layer)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(inputs, (left, right, top, bottom), mode=mode)
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


def layer_patches(layer: nn.Conv2d | nn.Linear, inputs: Tensor, sites: Sites) -> Tensor:
    """The same as vectors, float [rows, C * kernel positions], channel-major like the weight."""
    return patches_by_position(layer, inputs, sites).transpose(1, 2).flatten(1)


def channels_at(layer: nn.Conv2d | nn.Linear, outputs: Tensor, sites: Sites) -> Tensor:
    """The output vectors at ``sites``.

    Args:
        layer: Decides where the channels are.
        outputs: Its output, or something else of the same shape: float [n, C, H, W]; of a linear
            layer [n, ..., C].
        sites: Places of the map.

    Returns:
        float [rows, C].
    """
    if isinstance(layer, nn.Linear):
        return _rows_of_linear(outputs, sites)
    return outputs[sites.image, :, sites.row, sites.column]


def _rows_of_linear(values: Tensor, sites: Sites) -> Tensor:
    """Vectors [rows, C] of [n, ..., C], all positions of which count as rows of the map."""
    return values.reshape(len(values), -1, values.shape[-1])[sites.image, sites.row]
