"""Networks that do to channels what users do: each is of a kind that was traced wrongly once."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "AttentionNet",
    "BilinearNet",
    "BoundMethodNet",
    "EveryOtherNet",
    "ImageBesideNet",
    "LateBranchNet",
    "PlainListNet",
    "RollNet",
    "ShuffleNet",
    "TiedNet",
    "TwoNamesNet",
    "TwoWaysNet",
    "WeightsBesideNet",
    "squeeze_excitation",
]


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class _Net(nn.Module):
    """Two blocks and a classifier.

    Args:
        num_classes: Outputs.
        input_shape: Of an image.
    """

    def __init__(
        self, num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 8, 8)
    ) -> None:
        super().__init__()
        self.a, self.b = _block(input_shape[0], 12), _block(12, 10, 2)
        self.head = nn.Linear(10, num_classes)

    def classify(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


class RollNet(_Net):
    """Channels move by half of their number, which slimming changes."""

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.a(x)
        return self.classify(self.b(x.roll(x.shape[1] // 2, 1)))


class EveryOtherNet(_Net):
    """Every other channel is written in place, through a view."""

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.a(x)
        y = x.clone()
        y[:, ::2] = x[:, ::2] * 0.5
        return self.classify(self.b(y))


class TwoWaysNet(_Net):
    """Which layer is used depends on the values of an image."""

    def __init__(
        self, num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 8, 8)
    ) -> None:
        super().__init__(num_classes, input_shape)
        self.other = _block(12, 10, 2)
        self.last = _block(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        bright = x.mean() > 0.1
        x = self.a(x)
        return self.classify(self.last(self.b(x) if bright else self.other(x)))


class LateBranchNet(_Net):
    """Values decide what happens, and no layer is used in another way."""

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        if torch.isnan(x).any():
            raise ValueError("these are no images")
        x = self.b(self.a(x) * (2.0 if float(x.sum()) > 0 else 1.0))
        if float(x.max()) > 1e6:
            x = x * 0.5
        return self.classify(x)


class PlainListNet(_Net):
    """A layer that is used through a plain list, and one through a dictionary in it."""

    def __init__(
        self, num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 8, 8)
    ) -> None:
        super().__init__(num_classes, input_shape)
        self.parts = [self.a, {"last": (self.b,)}]

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        return self.classify(self.parts[1]["last"][0](self.parts[0](x)))


class BoundMethodNet(_Net):
    """Layers that are used by methods which the network keeps."""

    def __init__(
        self, num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 8, 8)
    ) -> None:
        super().__init__(num_classes, input_shape)
        self.steps = [self.a.forward, partial(self.call, self.b)]

    @staticmethod
    def call(layer: nn.Module, x: Tensor) -> Tensor:
        """Run a layer."""
        return layer(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        for step in self.steps:
            x = step(x)
        return self.classify(x)


class TwoNamesNet(_Net):
    """Modules under two names, of which the forward pass uses the second and a list."""

    def __init__(
        self, num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 8, 8)
    ) -> None:
        super().__init__(num_classes, input_shape)
        self.features = nn.Sequential(self.a, self.b)
        self.parts = [self.b]
        self.classifier = self.head

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        return self.classifier(self.parts[0](self.features[0](x)).mean((2, 3)))


class TiedNet(_Net):
    """Two layers with one weight."""

    def __init__(
        self, num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 8, 8)
    ) -> None:
        super().__init__(num_classes, input_shape)
        self.c, self.d = _block(10, 10), _block(10, 10)
        self.d[0].weight = self.c[0].weight

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        return self.classify(self.d(self.c(self.b(self.a(x)))))


class WeightsBesideNet(_Net):
    """A weight is read without its layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.b(self.a(x))
        return self.classify(x * self.b[0].weight.abs().mean((1, 2, 3))[:, None, None])


class ImageBesideNet(_Net):
    """The image goes on beside what a layer makes of it."""

    def __init__(
        self, num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 8, 8)
    ) -> None:
        super().__init__(num_classes, input_shape)
        self.b = _block(12 + input_shape[0], 10, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        return self.classify(self.b(torch.cat([x, self.a(x)], 1)))


class BilinearNet(_Net):
    """Products of all pairs of channels."""

    def __init__(
        self, num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 8, 8)
    ) -> None:
        super().__init__(num_classes, input_shape)
        self.head = nn.Linear(100, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.b(self.a(x)).flatten(2)
        return self.head((x @ x.transpose(1, 2)).flatten(1))


class AttentionNet(_Net):
    """Attention in windows that are shifted, with weights that are read beside their layer."""

    def __init__(
        self, num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 8, 8)
    ) -> None:
        super().__init__(num_classes, input_shape)
        self.queries, self.keys, self.values = (nn.Linear(12, 12) for _ in range(3))
        self.norm = nn.LayerNorm(12)
        self.wide, self.narrow = nn.Linear(12, 24), nn.Linear(24, 12)
        self.head = nn.Linear(12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.a(x).permute(0, 2, 3, 1)
        y = torch.roll(self.norm(x), (-2, -2), (1, 2)).unfold(1, 4, 4).unfold(2, 4, 4)
        y = y.permute(0, 1, 2, 4, 5, 3).reshape(-1, 16, 2, 6).transpose(1, 2).reshape(-1, 16, 12)
        queries = functional.linear(y, self.queries.weight, self.queries.bias)
        y = functional.scaled_dot_product_attention(queries, self.keys(y), self.values(y))
        x = x + y.mean((0, 1))
        x = x + self.narrow(functional.gelu(self.wide(x)))
        return self.head(x.mean((1, 2)))


class ShuffleNet(_Net):
    """Channels in two halves that are shuffled (ShuffleNetV2)."""

    def __init__(
        self, num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 8, 8)
    ) -> None:
        super().__init__(num_classes, input_shape)
        self.branch = nn.Sequential(_block(6, 14), _block(14, 6))

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        one, other = self.a(x).chunk(2, dim=1)
        x = torch.cat((one, self.branch(other)), dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.classify(self.b(x))


class _ChannelScale(nn.Module):
    """Squeeze-and-excitation on a depthwise convolution, in a residual connection."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = _block(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.squeeze, self.excite = nn.Conv2d(hidden, 4, 1), nn.Conv2d(4, hidden, 1)
        self.project = _block(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.depthwise(self.expand(x)))
        scale = self.excite(functional.silu(self.squeeze(y.mean((2, 3), keepdim=True))))
        return x + self.project(y * scale.sigmoid())


def squeeze_excitation(
    num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 8, 8)
) -> nn.Module:
    """Two such blocks between a stem and a classifier."""
    return nn.Sequential(
        _block(input_shape[0], 8, 2),
        *(_ChannelScale(8, 32) for _ in range(2)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, num_classes),
    )
