"""VGG with BatchNorm for small images: torchvision's features and one linear classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

__all__ = ["VGG"]

_CONFIGURATIONS = {11: "A", 13: "B", 16: "D", 19: "E"}


class VGG(nn.Module):
    """Convolutions of Simonyan & Zisserman 2015 with BatchNorm, then one linear layer.

    Keys are torchvision's ``features.*``; ``classifier`` is a single layer, as usual on CIFAR.
    A pooling that would shrink a small image below one pixel is left out.

    Args:
        depth: 11, 13, 16 or 19.
        num_classes: Outputs.
        input_shape: (channels, height, width) of an image.
    """

    def __init__(self, depth: int, num_classes: int, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.features = make_layers(cfgs[_CONFIGURATIONS[depth]], batch_norm=True)
        size = min(height, width)
        for index, layer in enumerate(self.features):
            if isinstance(layer, nn.ReLU):
                self.features[index] = nn.ReLU()
            elif isinstance(layer, nn.MaxPool2d):
                if size < 2:
                    self.features[index] = nn.Identity()
                size //= 2
        if channels != 3:
            self.features[0] = nn.Conv2d(channels, 64, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, num_classes]."""
        return self.classifier(self.pool(self.features(x)).flatten(1))
