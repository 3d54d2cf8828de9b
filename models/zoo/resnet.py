"""Residual networks for small images: He et al. 2015, section 4.2, and ResNet-18."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from .shortcut import PadShortcut

__all__ = ["BasicBlock", "ResNet", "cifar_resnet", "resnet18"]

Shortcut = Callable[[int, int, int], nn.Module]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm around a shortcut (He et al. 2015, figure 2).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution and of the shortcut.
        shortcut: Builds the shortcut from (in_channels, out_channels, stride) where the block
            changes the shape; elsewhere it is the identity.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shortcut: Shortcut
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        changes_shape = stride != 1 or in_channels != out_channels
        self.shortcut = (
            shortcut(in_channels, out_channels, stride) if changes_shape else nn.Identity()
        )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [N, in, H, W] to [N, out, H / stride, W / stride]."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))


class ResNet(nn.Module):
    """A 3x3 stem, stages ``layer1``, ``layer2``, ... of basic blocks, and a linear classifier.

    Args:
        widths: Channels of each stage; the stem has those of the first. Every stage after the
            first halves the resolution.
        depths: Blocks of each stage.
        num_classes: Outputs.
        in_channels: Channels of the images.
        shortcut: How a block that changes the shape passes its input on.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        num_classes: int,
        in_channels: int,
        shortcut: Shortcut,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu1 = nn.ReLU()
        channels = widths[0]
        self._stages = []
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            blocks = []
            for index in range(depth):
                stride = 2 if number > 1 and index == 0 else 1
                blocks.append(BasicBlock(channels, width, stride, shortcut))
                channels = width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            self._stages.append(f"layer{number}")
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, num_classes]."""
        x = self.relu1(self.bn1(self.conv1(x)))
        for stage in self._stages:
            x = self.get_submodule(stage)(x)
        return self.linear(self.pool(x).flatten(1))


def cifar_resnet(depth: int, num_classes: int, input_shape: tuple[int, int, int]) -> ResNet:
    """The CIFAR ResNet of ``6n + 2`` layers (He et al. 2015, section 4.2), option-A shortcuts."""
    blocks = (depth - 2) // 6
    return ResNet((16, 32, 64), (blocks,) * 3, num_classes, input_shape[0], PadShortcut)


def resnet18(num_classes: int, input_shape: tuple[int, int, int]) -> ResNet:
    """ResNet-18 with the CIFAR stem (3x3, stride 1, no max-pooling) and 1x1 shortcuts."""
    return ResNet((64, 128, 256, 512), (2,) * 4, num_classes, input_shape[0], _projection)


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Build option B of He et al. 2015: a strided 1x1 convolution with BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )


def _initialise(network: nn.Module) -> None:
    """Initialise the convolutions as He et al. 2015b do."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
