"""The parameter-free shortcut of CIFAR ResNets, as a module that can be slimmed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PadShortcut"]


class PadShortcut(nn.Module):
    """Option A of He et al. 2015, section 3.3: subsample, and pad new channels with zeros.

    The input's channels sit in the middle of the output's (``(out - in) // 2`` zeros before
    them), as in the common CIFAR implementations. ``source`` says it explicitly, so slimming may
    replace it by any other mapping.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, at least ``in_channels``.
        stride: Spatial subsampling.

    Attributes:
        in_channels: Channels of the input.
        source: For each output channel, the input channel it copies, or -1 for zeros.
        stride: Spatial subsampling.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        before = (out_channels - in_channels) // 2
        after = out_channels - in_channels - before
        self.in_channels = in_channels
        self.stride = stride
        self.source: tuple[int, ...] = (-1,) * before + tuple(range(in_channels)) + (-1,) * after

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return len(self.source)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [N, in, H, W] to [N, out, ceil(H / stride), ceil(W / stride)]."""
        x = x[:, :, :: self.stride, :: self.stride]
        padding = _padding(self.source, x.shape[1])
        if padding is not None:
            return functional.pad(x, (0, 0, 0, 0, *padding))
        # One channel of zeros behind the real ones is what -1 copies.
        zeros = x.shape[1]
        padded = functional.pad(x, (0, 0, 0, 0, 0, 1))
        source = [channel if channel >= 0 else zeros for channel in self.source]
        return padded[:, torch.tensor(source, device=x.device)]

    def extra_repr(self) -> str:
        """Return the sizes for ``print(network)``."""
        kept = sum(channel >= 0 for channel in self.source)
        return f"copied={kept}, out_channels={len(self.source)}, stride={self.stride}"


def _padding(source: Sequence[int], in_channels: int) -> tuple[int, int] | None:
    """Count zeros before and after, if ``source`` copies each input channel once and in order."""
    copied = [channel for channel in source if channel >= 0]
    if not copied or copied != list(range(in_channels)):
        return None
    before = source.index(0)
    if list(source[before : before + in_channels]) != copied:
        return None
    return before, len(source) - before - in_channels
