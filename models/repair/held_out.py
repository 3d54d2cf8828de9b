"""Which calibration images are held out, and how near a network is to the dense one on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..divergence import divergence

__all__ = ["RIDGES", "HeldOutImages", "are_few", "held_out_count", "smallest_good"]

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e4)
"""What is tried where images are few, as shares of the mean variance of a column; the first one is
what is taken where they are many, and the last one keeps weights as they are (our choice)."""

# A larger ridge must lower the error on images held out by this share.
_NOTICEABLE = 0.02
# Places of one image see much the same: more than this many count as so many.
_PLACES_PER_IMAGE = 24
# Places for each column from which on images count as many.
_ENOUGH = 4
_SHARE = 4
_MOST = 64
_BATCH = 64
# At 1, the few images decide on which networks are unsure; see `divergence`.
_TEMPERATURE = 4.0


def held_out_count(images: int) -> int:
    """How many images are held out of so many, the last ones: a quarter, at most 64.

    Args:
        images: Calibration images.

    Returns:
        0 of a single image.
    """
    return min(_MOST, -(-images // _SHARE)) if images > 1 else 0


def are_few(images: int, places: int, rows: int, columns: int) -> bool:
    """Whether a regression must be judged by images held out, or may trust what it is given.

    Args:
        images: Images.
        places: Of the map of each image.
        rows: Places that are sampled, over all images.
        columns: Numbers to find for each output.
    """
    return min(rows, images * min(places, _PLACES_PER_IMAGE)) < _ENOUGH * columns


def smallest_good(errors: Sequence[float]) -> int:
    """The first of some errors that is about as small as the smallest one; an index."""
    most = (1 + _NOTICEABLE) * min(errors)
    return next((index for index, error in enumerate(errors) if error <= most), len(errors) - 1)


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
        """Mean divergence of a network's predictions from the dense one's, at temperature 4.

        Args:
            network: In evaluation mode, float32.

        Returns:
            Nats; lower is better. Infinity where outputs are not finite.
        """
        outputs = self._outputs(network)
        if not bool(torch.isfinite(outputs).all()):
            return float("inf")
        return float(divergence(outputs, self._wanted, _TEMPERATURE).mean())

    @torch.no_grad()
    def _outputs(self, network: nn.Module) -> Tensor:
        return torch.cat([network(batch).float() for batch in self._images.split(_BATCH)])
