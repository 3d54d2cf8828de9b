"""Random crops and mirror images of a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["crop_and_mirror"]


def crop_and_mirror(images: Tensor, generator: torch.Generator, *, mirror: bool = True) -> Tensor:
    """The usual augmentation of small images (He et al. 2015, section 4.2).

    Every image is padded with zeros by an eighth of its height (4 pixels for 32x32 images),
    cropped back to its size at a random place, and, when ``mirror``, flipped left to right half
    of the time.

    Args:
        images: [N, C, H, W], of any dtype and device.
        generator: Source of randomness, on the CPU, so that a seed means the same on any device.
        mirror: Whether to flip.

    Returns:
        A new tensor like ``images``.
    """
    count, _, height, width = images.shape
    padding = max(height // 8, 1)
    padded = functional.pad(images, (padding,) * 4)
    shifts = torch.randint(2 * padding + 1, (2, count), generator=generator).to(images.device)
    # A view of all crops of all images: [N, C, rows, columns, H, W].
    crops = padded.unfold(2, height, 1).unfold(3, width, 1)
    cropped = crops[torch.arange(count, device=images.device), :, shifts[0], shifts[1]]
    if mirror:
        flipped = torch.rand(count, generator=generator) < 0.5
        chosen = flipped.to(images.device)[:, None, None, None]
        cropped = torch.where(chosen, cropped.flip(-1), cropped)
    return cropped
