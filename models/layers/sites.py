"""Places of the maps that layers write, some of which are sampled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Sites", "sample_sites"]


@dataclass(frozen=True)
class Sites:
    """Some places of a batch of output maps, in no particular order.

    Attributes:
        image: Index of the image, int64 [rows].
        row: Row of the output map, int64 [rows].
        column: Column of the output map, int64 [rows].
    """

    image: Tensor
    row: Tensor
    column: Tensor


def sample_sites(
    images: int, size: tuple[int, int], rows: int, generator: torch.Generator
) -> Sites:
    """Draw distinct places evenly over images and positions.

    Args:
        images: Images in the batch.
        size: Height and width of the output map; (1, 1) for a linear layer.
        rows: Places wanted; all places if there are fewer.
        generator: Source of randomness.
    """
    height, width = size
    total = images * height * width
    chosen = (
        torch.arange(total) if rows >= total else torch.randperm(total, generator=generator)[:rows]
    )
    return Sites(chosen // (height * width), chosen // width % height, chosen % width)
