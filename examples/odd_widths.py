"""A budget of your own: at most so many layers may have an odd number of channels."""

from __future__ import annotations

from torch import Tensor, nn


def odd_widths(network: nn.Module, example_input: Tensor) -> float:
    """How many convolutions have an odd number of output channels.

    Args:
        network: A candidate, float32, in evaluation mode; it is a copy, so it may be changed.
        example_input: One image [1, C, H, W], for costs that need a forward pass.
    """
    layers = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    return float(sum(layer.out_channels % 2 for layer in layers))
