"""The common case of a measure: a mean over images of something read from the outputs."""

from __future__ import annotations

import math
from abc import abstractmethod

from torch import Tensor

from .measure import Batch, Measure

__all__ = ["RunningMean"]


class RunningMean(Measure):
    """A measure that is the mean over images of ``per_image``; needs no hook."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._total = 0.0
        self._images = 0

    @abstractmethod
    def per_image(self, batch: Batch) -> Tensor:
        """One number or truth value per image, ``[N]``."""

    def update(self, batch: Batch) -> None:
        """Add one batch."""
        # In double precision the total does not depend on how images are cut into batches, up to
        # rounding far below what a measure can mean.
        values = self.per_image(batch).double()
        self._total += float(values.sum())
        self._images += len(values)

    def compute(self) -> dict[str, float]:
        """The mean over all images so far; not-a-number when there were none."""
        return {self.name: self._total / self._images if self._images else math.nan}
