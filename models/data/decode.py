"""From encoded images (PNG, JPEG, WebP, ...) to pixels of one size."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ...errors import DataError

__all__ = ["Decoder"]

_GREY_MODES = ("1", "L", "I", "I;16", "F", "LA")


@dataclass(frozen=True)
class Decoder:
    """Decodes images to one shape.

    Attributes:
        shape: (channels, height, width); one channel is grey, three are RGB.
        resize: Whether images of another size are resized (shorter side) and cropped in the
            middle, rather than refused.
    """

    shape: tuple[int, int, int]
    resize: bool

    @classmethod
    def for_image(cls, image: bytes | Path, name: str, image_size: int | None) -> Decoder:
        """The decoder for a set of images like this one.

        Args:
            image: One encoded image, or its file.
            name: How messages call that image.
            image_size: Side in pixels of the decoded images; that of ``image`` when None.

        Raises:
            DataError: If the image cannot be decoded.
        """
        opened = _open(image, name)
        channels = 1 if opened.mode in _GREY_MODES else 3
        width, height = opened.size
        if image_size is not None:
            return cls((channels, image_size, image_size), resize=True)
        return cls((channels, height, width), resize=False)

    def decode(self, image: bytes | Path, name: str) -> npt.NDArray[np.uint8]:
        """Decode one image to uint8 [C, H, W].

        Args:
            image: The encoded image, or its file.
            name: How messages call it.

        Raises:
            DataError: If it cannot be decoded, or has another size and ``resize`` is off.
        """
        channels, height, width = self.shape
        opened = _open(image, name)
        if opened.size != (width, height):
            if not self.resize:
                raise DataError(
                    f"{name} is {opened.size[0]}x{opened.size[1]} but the first image is "
                    f"{width}x{height}; set data.image_size to bring all images to one size."
                )
            opened = ImageOps.fit(opened, (width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(opened.convert("L" if channels == 1 else "RGB"))
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _open(image: bytes | Path, name: str) -> Image.Image:
    try:
        opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
        opened.load()
    except Exception as error:
        reason = "not a readable image" if "cannot identify" in str(error) else str(error)
        raise DataError(f"{name} cannot be decoded ({reason}); repair or remove it.") from error
    return opened
