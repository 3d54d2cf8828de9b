"""Measures that compare the candidate's outputs with the true classes."""

from __future__ import annotations

import torch
from torch.nn import functional

from .measure import Batch
from .running_mean import RunningMean

__all__ = ["Accuracy", "Loss"]


class Accuracy(RunningMean):
    """Top-1 accuracy as a fraction in [0, 1]."""

    name = "accuracy"

    def per_image(self, batch: Batch) -> torch.Tensor:
        """Whether the largest logit is the true class's."""
        return batch.outputs.argmax(dim=1) == batch.labels


class Loss(RunningMean):
    """Cross-entropy between the true class and the candidate's outputs, mean per image, nats."""

    name = "loss"

    def per_image(self, batch: Batch) -> torch.Tensor:
        """Negative log-likelihood of the true class."""
        return functional.cross_entropy(batch.outputs.float(), batch.labels, reduction="none")
