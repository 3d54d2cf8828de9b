"""The precision that networks run in: which, and networks and images in it."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from ..._compat import multiplies_bf16
from ..copying import shallow_copy
from ..layers import averages

__all__ = ["Precision", "cast_network", "place_images", "resolve_precision"]

Precision = Literal["auto", "fp32", "bf16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def resolve_precision(asked: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """The precision to evaluate in.

    Args:
        asked: ``auto`` takes bf16 where the processor computes with it.
        device: Where networks are evaluated.
    """
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if multiplies_bf16() else "fp32"


def cast_network(
    network: nn.Module,
    precision: Literal["fp32", "bf16"],
    device: torch.device,
    channels_last: bool = True,
) -> nn.Module:
    """A copy with its weights in another precision; BatchNorm stays in float32.

    PyTorch's own BatchNorm reads bf16 beside float32 statistics. A subclass of it may not, so it is
    cast like any other layer.

    Args:
        network: Any network; it is not changed.
        precision: Of all floating-point parameters and buffers but those of BatchNorm.
        device: Where the copy lives.
        channels_last: Whether its convolutions' weights lie in memory channels last.
    """
    dtype = _DTYPES[precision]
    layout = _layout(channels_last)

    def moved(value: Tensor, dtype: torch.dtype) -> Tensor:
        kept = layout if value.dim() == 4 else torch.preserve_format
        return value.to(device=device, dtype=dtype, memory_format=kept, copy=True)

    def cast(name: str, module: nn.Module) -> nn.Module | None:
        if not module._parameters and not module._buffers:
            return None
        chosen = torch.float32 if averages(module) else dtype
        duplicate = copy.copy(module)
        duplicate._parameters = {
            key: None
            if value is None
            else nn.Parameter(moved(value.detach(), chosen), requires_grad=False)
            for key, value in module._parameters.items()
        }
        duplicate._buffers = {
            key: None
            if value is None
            else moved(value, chosen if value.is_floating_point() else value.dtype)
            for key, value in module._buffers.items()
        }
        return duplicate

    return shallow_copy(network, cast)


def place_images(
    images: Tensor,
    precision: Literal["fp32", "bf16"],
    device: torch.device,
    channels_last: bool = True,
) -> Tensor:
    """Images [N, C, H, W] as a network that was cast reads them."""
    return images.to(device, _DTYPES[precision], memory_format=_layout(channels_last))


def _layout(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format
