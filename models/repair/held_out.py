"""Which calibration images are held out, and how near a network is to the dense one on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..divergence import divergence

__all__ = ["HeldOutImages", "held_out_count"]

_SHARE = 8
_MOST = 64
_BATCH = 64


def held_out_count(images: int) -> int:
    """How many images are held out of so many, the last ones: an eighth, at least 1, at most 64.

    Args:
        images: Calibration images.

    Returns:
        0 of a single image.
    """
    return min(_MOST, -(-images // _SHARE)) if images > 1 else 0


class HeldOutImages:
    """Judges networks by images that no repair has learned from.

    Args:
        network: The dense network, in evaluation mode.
        images: Calibration images, float32 [N, C, H, W]; the last ones are held out.

    Attributes:
        learned: The others, [n, C, H, W].
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        count = held_out_count(len(images))
        self.learned = images[: len(images) - count]
        self._images = images[len(images) - count :] if count else images
        self._wanted = self._outputs(network)

    def divergence(self, network: nn.Module) -> float:
        """Mean divergence of a network's predictions from the dense one's, nats; lower is better.

        Args:
            network: In evaluation mode, float32.

        Returns:
            Infinity where outputs are not finite.
        """
        outputs = self._outputs(network)
        if not bool(torch.isfinite(outputs).all()):
            return float("inf")
        return float(divergence(outputs, self._wanted).mean())

    @torch.no_grad()
    def _outputs(self, network: nn.Module) -> Tensor:
        return torch.cat([network(batch).float() for batch in self._images.split(_BATCH)])
