"""Recalibration: BatchNorm statistics of the network as it is now."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["recalibrate_batchnorm"]


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
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    network.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for images in batches:
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
