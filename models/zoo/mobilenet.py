"""MobileNetV2 for small images: torchvision's network with fewer strides."""

from __future__ import annotations

from torch import nn
from torchvision.models import MobileNetV2

from .adapt import adapt_input_channels, own_activations

__all__ = ["mobilenetv2"]

# Rows of (expansion, channels, repetitions, stride): table 2 of Sandler et al. 2018, with the
# stride of the 24-channel stage, like that of the stem, reduced to 1 for 32x32 images.
_STAGES = [
    [1, 16, 1, 1],
    [6, 24, 2, 1],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]


def mobilenetv2(num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """MobileNetV2 (Sandler et al. 2018) with the CIFAR stem; keys are torchvision's."""
    network = MobileNetV2(num_classes=num_classes, inverted_residual_setting=_STAGES)
    stem = network.features[0][0]
    stem.stride = (1, 1)
    adapt_input_channels(network, input_shape[0])
    own_activations(network)
    return network
