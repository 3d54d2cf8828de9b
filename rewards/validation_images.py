"""The validation images of an evaluation: on the device, in its precision, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.task import PruningTask
from .sampling import Sample

__all__ = ["ValidationImages", "place_images"]

_CPU_BATCH, _GPU_BATCH = 100, 1000


@dataclass(frozen=True)
class ValidationImages:
    """All validation images, or a sample of them.

    Attributes:
        images: Normalised, ``[N, C, H, W]`` each, channels last.
        labels: True classes, int64 ``[N]`` each.
        sample: How they were drawn; None for all of them.
    """

    images: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    sample: Sample | None = None

    @classmethod
    def of(cls, task: PruningTask, precision: str, device: torch.device) -> ValidationImages:
        """All of a task's, in ``precision`` ``fp32`` or ``bf16``."""
        size = _GPU_BATCH if device.type == "cuda" else _CPU_BATCH
        return cls(
            tuple(place_images(p, precision, device) for p in task.validation.images.split(size)),
            tuple(labels.to(device) for labels in task.validation.labels.split(size)),
        )

    def draw(self, sample: Sample) -> ValidationImages:
        """A sample of all images, in batches of the same size."""
        size = len(self.images[0])
        indices = torch.from_numpy(sample.indices).to(self.images[0].device)
        images = torch.cat(self.images)[indices].contiguous(memory_format=torch.channels_last)
        labels = torch.cat(self.labels)[indices]
        return ValidationImages(images.split(size), labels.split(size), sample)

    def samples(self) -> Iterator[Sample | None]:
        """The part of the sample in each batch; None each where there is none."""
        start = 0
        for labels in self.labels:
            stop = start + len(labels)
            yield None if self.sample is None else self.sample[start:stop]
            start = stop


def place_images(images: Tensor, precision: str, device: torch.device) -> Tensor:
    """Images ``[N, C, H, W]`` as candidates read them."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return images.to(device=device, dtype=dtype, memory_format=torch.channels_last)
