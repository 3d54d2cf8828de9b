"""Recalibration: BatchNorm statistics of the network as it is now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .._compat import is_batchnorm

if TYPE_CHECKING:
    from .._compat import BatchNorm

__all__ = ["estimating_statistics", "recalibrate_batchnorm"]


@torch.no_grad()
def recalibrate_batchnorm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace running means and variances by their averages over ``batches``, in place.

    Equal weights for all batches, as in "precise BN" (Wu & Johnson 2021, section 3), instead of
    the running average that training leaves behind, which lags after few steps. Every layer sees
    its predecessors normalise with the batch's own statistics. Dropout stays off.

    Args:
        network: Left in evaluation mode. Without BatchNorm, nothing happens.
        batches: Normalised images [N, C, H, W] of equal N, on the network's device.
    """
    with estimating_statistics(network) as norms:
        for images in batches if norms else ():
            network(images)


@contextmanager
def estimating_statistics(network: nn.Module) -> Iterator[list[BatchNorm]]:
    """While it lasts, BatchNorm normalises with each batch's statistics and averages them.

    Args:
        network: Left in evaluation mode, with the averages as running means and variances; without
            a forward pass in between they are 0 and 1.

    Yields:
        The layers that average.
    """
    norms = [
        module
        for module in network.modules()
        if is_batchnorm(module) and module.track_running_stats
    ]
    network.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield norms
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()
