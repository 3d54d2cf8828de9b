"""The validation images of an evaluation: on the device, in its precision, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.inference.shortcuts import FastInference
from ...models.task import PruningTask
from .sampling import Sample

__all__ = ["ValidationImages"]

_GPU_BATCH = 1000
# Calls cost more than memory where images are small.
_CPU_BATCH, _CPU_BATCH_SMALL, _SMALL_PIXELS = 100, 200, 32 * 32


@dataclass(frozen=True)
class ValidationImages:
    """All validation images, or a sample of them.

    Attributes:
        images: Normalised, ``[N, C, H, W]`` each.
        labels: True classes, int64 ``[N]`` each.
        sample: How they were drawn; None for all of them.
    """

    images: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    sample: Sample | None = None

    @classmethod
    def of(cls, task: PruningTask, fast: FastInference) -> ValidationImages:
        """All of a task's, as candidates read them."""
        images = task.validation.images
        size = _CPU_BATCH if images[0, 0].numel() > _SMALL_PIXELS else _CPU_BATCH_SMALL
        if fast.device.type == "cuda":
            size = _GPU_BATCH
        return cls(
            tuple(fast.images(part) for part in images.split(size)),
            tuple(labels.to(fast.device) for labels in task.validation.labels.split(size)),
        )

    def draw(self, sample: Sample) -> ValidationImages:
        """A sample of all images, in batches of the same size."""
        size = len(self.images[0])
        indices = torch.from_numpy(sample.indices).to(self.images[0].device)
        # Images of one channel lie in memory either way, and either way is fine for them.
        ordered = self.images[0].is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if ordered else torch.contiguous_format
        images = torch.cat(self.images)[indices].contiguous(memory_format=layout)
        labels = torch.cat(self.labels)[indices]
        return ValidationImages(images.split(size), labels.split(size), sample)

    def samples(self) -> Iterator[Sample | None]:
        """The part of the sample in each batch; None each where there is none."""
        start = 0
        for labels in self.labels:
            stop = start + len(labels)
            yield None if self.sample is None else self.sample[start:stop]
            start = stop
