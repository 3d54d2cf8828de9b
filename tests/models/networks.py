"""Networks to prune in tests, random statistics for them, and oracles of their own."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from prunetune.models import ChannelGroups, build_network, trace_channel_groups
from prunetune.models.groups import ChannelGroup
from prunetune.models.zoo import PadShortcut
from torch import Tensor, nn

Kept = list[NDArray[np.int64]]


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every BatchNorm statistics and scales that a slip in indexing would show."""
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.copy_(draw(module.weight, 0.5, 1.5))
                module.bias.copy_(draw(module.bias, -0.5, 0.5))
                module.running_mean.copy_(draw(module.running_mean, -0.2, 0.2))
                module.running_var.copy_(draw(module.running_var, 0.5, 1.5))
            elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.copy_(draw(module.bias, -0.5, 0.5))
    return network.eval()


@cache
def traced(
    reference: str, scope: str = "all", shape: tuple[int, int, int] = (3, 16, 16)
) -> tuple[nn.Module, ChannelGroups]:
    """A network with random statistics and its groups; not to be changed."""
    torch.manual_seed(0)
    network = randomise(build_network(reference, 10, shape))
    return network, trace_channel_groups(network, torch.rand(1, *shape), scope)


def images_for(groups: ChannelGroups, count: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, *groups.structure.input_shape), generator=generator)


def random_kept(groups: ChannelGroups, seed: int) -> Kept:
    """A random candidate, from single units to everything."""
    draw = np.random.default_rng(seed)
    return [
        np.sort(draw.permutation(size)[: draw.integers(1, size + 1)]).astype(np.int64)
        for size in groups.sizes
    ]


def half_kept(groups: ChannelGroups, seed: int = 0) -> Kept:
    """A random half of every group."""
    draw = np.random.default_rng(seed)
    return [np.sort(draw.permutation(size)[: max(1, size // 2)]) for size in groups.sizes]


def widths_of(kept: Kept) -> tuple[int, ...]:
    return tuple(len(units) for units in kept)


@torch.no_grad()
def masked_outputs(
    network: nn.Module, groups: ChannelGroups | list[ChannelGroup], kept: Kept, images: Tensor
) -> Tensor:
    """Outputs of the dense network with removed channels zeroed wherever they come out."""
    handles = []
    for group, units in zip(groups, kept, strict=True):
        gone = [unit for unit in range(group.size) if unit not in set(units.tolist())]
        for member in group.producers():
            channels = member.channels[gone].reshape(-1)

            def zero(
                module: nn.Module,
                inputs: tuple[Tensor, ...],
                output: Tensor,
                channels: NDArray[np.int64] = channels,
            ) -> Tensor:
                output = output.clone()
                last = isinstance(module, nn.Linear)
                (output if last else output.movedim(1, -1))[..., channels] = 0
                return output

            handles.append(network.get_submodule(member.layer).register_forward_hook(zero))
    try:
        return network(images)
    finally:
        for handle in handles:
            handle.remove()


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same_weights(network: nn.Module, before: dict[str, Tensor]) -> bool:
    after = network.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[n], before[n]) for n in before)


class Block(nn.Module):
    """A residual block; the sum is written as users write it."""

    def __init__(
        self, channels: int, sum_style: str = "plain", norm: bool = True, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, 1, bias=not norm)
        self.bn1 = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=not norm)
        self.bn2 = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.shortcut = PadShortcut(channels, channels, stride) if stride > 1 else nn.Identity()
        self.sum_style = sum_style

    def forward(self, x: Tensor) -> Tensor:
        """Add the convolutions of ``x`` to ``x``."""
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        identity = self.shortcut(x)
        if self.sum_style == "plain":
            out = out + identity
        elif self.sum_style == "swapped":
            out = torch.add(identity, out)
        elif self.sum_style == "in place":
            out += identity
        elif self.sum_style == "discarded":
            out.add_(identity)
        return out.relu()


class SmallNet(nn.Module):
    """A stem, three blocks and a classifier.

    Args:
        sum_style: How blocks add: ``plain``, ``swapped``, ``in place``, ``discarded`` (the result
            of ``add_`` is not used), or ``none``.
        norm: With BatchNorm.
    """

    def __init__(self, sum_style: str = "plain", norm: bool = True, channels: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=not norm)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.blocks = nn.Sequential(
            *(Block(channels, sum_style, norm, stride) for stride in (1, 2, 1))
        )
        self.linear = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.blocks(self.norm(self.stem(x)).relu())
        return self.linear(x.mean(dim=(2, 3)))


class DenseNetLike(nn.Module):
    """Two layers whose outputs are concatenated, normalised together and read together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(14)
        self.conv2 = nn.Conv2d(14, 10, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(10)
        self.linear = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.stem(x)
        y = self.conv1(self.norm1(x).relu())
        x = torch.cat([x, y], dim=1)
        x = self.norm3(self.conv2(self.norm2(x).relu())).relu()
        return self.linear(x.mean(dim=(2, 3)))


class MobileLike(nn.Module):
    """An inverted residual with a depthwise convolution, then linear layers after a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.expand = nn.Conv2d(8, 16, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.project = nn.Conv2d(16, 8, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 4, 3, 2, 1)
        self.hidden = nn.Linear(4 * 4 * 4, 20)
        self.hidden_norm = nn.BatchNorm1d(20)
        self.linear = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.norm(self.stem(x)).relu()
        y = self.norm1(self.expand(x)).relu()
        y = self.norm2(self.depthwise(y)).relu()
        x = x + self.norm3(self.project(y))
        x = self.last(x).relu().flatten(1)
        return self.linear(self.hidden_norm(self.hidden(x)).relu())


class GroupedNet(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions, as in ResNeXt."""

    def __init__(self, groups: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 24, 3, padding=1, groups=groups, bias=False)
        self.norm2 = nn.BatchNorm2d(24)
        self.last = nn.Conv2d(24, 8, 1)
        self.linear = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.norm1(self.stem(x)).relu()
        x = self.norm2(self.grouped(x)).relu()
        return self.linear(self.last(x).relu().mean(dim=(2, 3)))


class PreActivation(nn.Module):
    """BatchNorm reads a convolution's output, and so does the shortcut around it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 8, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.stem(x)
        x = x + self.conv2(self.norm2(self.conv1(self.norm1(x).relu())).relu())
        return self.linear(self.norm3(x).relu().mean(dim=(2, 3)))


class SharedLayers(nn.Module):
    """One convolution at two resolutions, each time with a BatchNorm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 8, 3, padding=1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.second(self.norm(self.first(self.stem(x).relu())).relu()).relu()
        x = self.norm1(self.shared(x)).relu()
        x = self.norm2(self.shared(x[:, :, ::2, ::2])).relu()
        return self.linear(x.mean(dim=(2, 3)))


class ChannelsLast(nn.Module):
    """Linear layers on [N, H, W, C] maps, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.widen = nn.Linear(8, 16)
        self.narrow = nn.Linear(16, 8)
        self.linear = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x + self.narrow(self.widen(x).relu())
        return self.linear(x.mean(dim=(1, 2)))


OWN_NETWORKS: dict[str, type[nn.Module]] = {
    network.__name__: network
    for network in (
        SmallNet,
        DenseNetLike,
        MobileLike,
        GroupedNet,
        PreActivation,
        SharedLayers,
        ChannelsLast,
    )
}


@cache
def traced_own(name: str, scope: str = "all") -> tuple[nn.Module, ChannelGroups]:
    """One of the networks above with random statistics, and its groups; not to be changed."""
    torch.manual_seed(1)
    network = randomise(OWN_NETWORKS[name](), 1)
    return network, trace_channel_groups(network, torch.rand(1, 3, 16, 16), scope)
