"""What measures of entropy share: the first images, few of the positions, the mean over layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from ...errors import SpecError
from .measure import Batch
from .tapped import TappedMeasure

__all__ = ["EntropyMeasure"]


class EntropyMeasure(TappedMeasure):
    """A measure that counts what it hears of the first images, and takes the mean over layers.

    Args:
        images: Only the first so many validation images are looked at.
        grid: In maps, look at about ``grid`` x ``grid`` evenly spaced positions; 0 for all.
        guard: Whether what is dead counts as the worst instead of as the best.

    Raises:
        SpecError: If a parameter is out of range.
    """

    def __init__(self, images: int, grid: int, guard: bool) -> None:
        if images < 1 or grid < 0:
            raise SpecError(
                f"The measure {self.name!r} takes images of at least 1 and grid of at least 0, "
                f"not {images} and {grid}."
            )
        self.images = images
        self.grid = grid
        self.guard = guard
        self.reset()

    @property
    def leading(self) -> int:
        """The images it looks at; see :class:`Measure`."""
        return self.images

    def reset(self) -> None:
        """Forget the counts of the last candidate."""
        self._seen = 0

    def update(self, batch: Batch) -> None:
        """Move on to the next images; all counting happened during the forward pass."""
        self._seen += len(batch.outputs)
        self.next_pass()
        if self._seen >= self.images:
            self.detach()

    def unseen(self, tensor: Tensor) -> Tensor | None:
        """The part of a batch's tensor [n, ...] that is still to be looked at, if there is any."""
        left = self.images - self._seen
        return tensor[:left] if left > 0 else None

    @staticmethod
    def mean(layers: Sequence[float]) -> float:
        """The mean over layers; not-a-number when no image was seen."""
        return sum(layers) / len(layers) if layers else math.nan
