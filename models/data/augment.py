"""Random changes of images that keep their class."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

__all__ = ["Augmentation", "augment", "crop_and_mirror"]

Augmentation = Literal["none", "crop-and-mirror", "randaugment"]

# Our choice: CIFAR-10 networks are then wrong about as often on images that they were trained on
# as on test images.
_OPERATIONS, _MAGNITUDE = 2, 7


def augment(images: Tensor, how: Augmentation, seed: int, *, mirror: bool = True) -> Tensor:
    """Change every image once, at random.

    Args:
        images: uint8 [N, C, H, W], on the CPU.
        how: ``none``; ``crop-and-mirror``, as :func:`crop_and_mirror`; or ``randaugment``, the
            same and then two random operations of magnitude 7 of 30, such as rotations and
            changes of contrast (Cubuk et al. 2020, arXiv 1909.13719).
        seed: Decides what happens to which image.
        mirror: Whether a mirrored image keeps its class.

    Returns:
        uint8 [N, C, H, W].
    """
    if how == "none":
        return images
    generator = torch.Generator().manual_seed(seed)
    images = crop_and_mirror(images, generator, mirror=mirror)
    if how == "crop-and-mirror":
        return images
    transform = v2.RandAugment(_OPERATIONS, _MAGNITUDE)
    # The transform draws from torch's own generator, and anew for every call.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([transform(image) for image in images])


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
