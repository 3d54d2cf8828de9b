"""Input patches of a layer: the vectors that its weights are multiplied with."""

from __future__ import annotations

from torch import Tensor, nn

from ..layers import Sites, multiplier_of

__all__ = ["channels_at", "layer_patches", "patches_by_position"]


def patches_by_position(layer: nn.Module, inputs: Tensor, sites: Sites) -> Tensor:
    """The patches that a layer reads to compute its outputs at ``sites``.

    Args:
        layer: A layer that multiplies, such as a convolution.
        inputs: Its input, float [n, C, H, W]; of a linear layer [n, ..., C].
        sites: Places of its output map.

    Returns:
        float [rows, kernel positions, C]; a linear layer's kernel has one position.
    """
    return multiplier_of(layer).patches(layer, inputs, sites)


def layer_patches(layer: nn.Module, inputs: Tensor, sites: Sites) -> Tensor:
    """The same as vectors, float [rows, C * kernel positions], channel-major like the weight."""
    return patches_by_position(layer, inputs, sites).transpose(1, 2).flatten(1)


def channels_at(layer: nn.Module, outputs: Tensor, sites: Sites) -> Tensor:
    """The output vectors at ``sites``.

    Args:
        layer: Decides where the channels are.
        outputs: Its output, or something else of the same shape: float [n, C, H, W]; of a linear
            layer [n, ..., C].
        sites: Places of the map.

    Returns:
        float [rows, C].
    """
    return multiplier_of(layer).outputs_at(outputs, sites)
