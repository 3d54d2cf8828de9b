"""From encoded images (PNG, JPEG, WebP, ...) to pixels of one size and type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ...errors import DataError
from .headers import Header, opened_image, read_header

__all__ = ["Decoder", "check_decoding"]


@dataclass(frozen=True)
class Decoder:
    """Decodes images to one shape, 8 bits a channel.

    Values are scaled by what their type means: of 16 bits, 65535 is white; floating-point numbers
    go from 0 to 1. Alpha channels are left out, of animations the first picture is read, and
    colours are converted without their profiles, as torchvision's `ImageFolder` does.

    Attributes:
        shape: (channels, height, width); one channel is grey, three are RGB.
        resize: Whether images of another size are resized (shorter side) and cropped in the
            middle, rather than refused.
    """

    shape: tuple[int, int, int]
    resize: bool

    def decode(self, image: bytes | Path, name: str) -> npt.NDArray[np.uint8]:
        """Decode one image to uint8 [C, H, W].

        Args:
            image: The encoded image, or its file.
            name: How messages call it.

        Raises:
            DataError: If it cannot be decoded, or has another size and ``resize`` is off.
        """
        channels, height, width = self.shape
        with opened_image(image, name) as opened:
            header = read_header(opened, name)
            if header.size != (width, height) and not self.resize:
                raise DataError(
                    f"{name} is {header.size[0]}x{header.size[1]} but most images are "
                    f"{width}x{height}; set data.image_size to bring all images to one size."
                )
            plain = _eight_bits(opened, header, name).convert("L" if channels == 1 else "RGB")
            if plain.size != (width, height):
                plain = ImageOps.fit(plain, (width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(plain)
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def check_decoding(image: bytes | Path, name: str) -> None:
    """Decode an image for nothing.

    Raises:
        DataError: If it cannot be decoded.
    """
    with opened_image(image, name) as opened:
        opened.load()


def _eight_bits(opened: Image.Image, header: Header, name: str) -> Image.Image:
    if header.full == 255:
        return opened
    values = np.asarray(opened)
    if header.full > 255:
        scaled = (values.astype(np.int64) * 255 + header.full // 2) // header.full
        return Image.fromarray(scaled.clip(0, 255).astype(np.uint8))
    # Not finite is not within either.
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise DataError(
            f"{name} has floating-point pixels from {values.min():g} to {values.max():g}; they "
            "must go from 0 to 1, so scale them or convert the image to 8 or 16 bits."
        )
    return Image.fromarray(np.rint(values * 255).astype(np.uint8))
