"""The common case of a measure: a mean over images of something read from the outputs."""

from __future__ import annotations

import math
from abc import abstractmethod

import numpy as np
from torch import Tensor

from ..evaluation.sampling import Sample, join, standard_error
from .measure import Batch, Measure

__all__ = ["RunningMean"]


class RunningMean(Measure):
    """A measure that is the mean over images of ``per_image``; needs no hook.

    Where images are sampled it is the unbiased estimate of the mean over all of them.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._total = 0.0
        self._images = 0.0
        self._sampled: list[tuple[Tensor, Sample]] = []

    @abstractmethod
    def per_image(self, batch: Batch) -> Tensor:
        """One number or truth value per image, ``[N]``."""

    def update(self, batch: Batch) -> None:
        """Add one batch."""
        # In double precision the total does not depend on how images are cut into batches, up to
        # rounding far below what a measure can mean.
        values = self.per_image(batch).double()
        weights = batch.weights
        self._total += float((values * weights).sum())
        self._images += float(weights.sum())
        if batch.sample is not None:
            self._sampled.append((values, batch.sample))

    def compute(self) -> dict[str, float]:
        """The weighted mean over all images so far; not-a-number when there were none."""
        return {self.name: self._total / self._images if self._images else math.nan}

    def standard_errors(self) -> dict[str, float]:
        """The mean's, where images are sampled; see :class:`Measure`."""
        if not self._sampled:
            return {}
        values = np.concatenate([part.cpu().numpy() for part, _ in self._sampled])
        return {self.name: standard_error(values, join([part for _, part in self._sampled]))}
