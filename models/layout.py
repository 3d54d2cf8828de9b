"""How images and weights lie in memory: channels last where a network can run so."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["layout_of"]


@torch.no_grad()
def layout_of(network: nn.Module, images: Tensor) -> torch.memory_format:
    """The fastest layout that a network can run in.

    Convolutions are faster where the channels of a pixel lie beside each other. Some networks
    insist on the usual order, as those do that call ``view`` on maps.

    Args:
        network: Any network, in any mode, which is restored. Its weights stay where they lie.
        images: One or more images that it accepts, [n, C, H, W], on its device and of its type.

    Returns:
        ``torch.channels_last`` or ``torch.contiguous_format``.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        # Unlike `contiguous`, this changes images of one channel, which lie either way, too.
        network(images[:2].to(memory_format=torch.channels_last, copy=True))
        return torch.channels_last
    except RuntimeError:
        return torch.contiguous_format
    finally:
        for module, mode in modes.items():
            module.training = mode
