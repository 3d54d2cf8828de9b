"""A small residual network for 8x8 digits: real enough to prune, trained in seconds."""

from __future__ import annotations

from torch import Tensor, nn

from .resnet import BasicBlock
from .shortcut import PadShortcut

__all__ = ["DigitsNet", "digits_net"]


class DigitsNet(nn.Module):
    """Two plain convolutions, a residual block, a strided convolution and two more blocks.

    Its hidden layers make four free channel groups (the stem and the inside of each block), and
    its residual streams two coupled ones. The sizes are our choice.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = _convolution(in_channels, 16, 1)
        self.widen = _convolution(16, 24, 1)
        self.block1 = BasicBlock(24, 24, 1, PadShortcut)
        self.reduce = _convolution(24, 48, 2)
        self.block2 = BasicBlock(48, 48, 1, PadShortcut)
        self.block3 = BasicBlock(48, 48, 1, PadShortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(48, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, num_classes]."""
        x = self.block1(self.widen(self.stem(x)))
        x = self.block3(self.block2(self.reduce(x)))
        return self.linear(self.pool(x).flatten(1))


def digits_net(num_classes: int, input_shape: tuple[int, int, int]) -> DigitsNet:
    """The small network for ``input_shape`` (channels, height, width)."""
    return DigitsNet(num_classes, input_shape[0])


def _convolution(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
