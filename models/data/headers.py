"""What an image file is: its type and size, by its header, and whether its end is there."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ...errors import DataError

__all__ = ["FORMATS", "MOST_PIXELS", "Header", "has_end", "opened_image", "read_header"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""Formats that are read. Pillow knows more, of which some run other programs."""

MOST_PIXELS = 2**26
"""A larger image is refused by its header: a file of kilobytes may hold gigabytes of pixels."""

_GREY = ("1", "L", "LA", "La")
_COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr")
_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
_SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N")
# Pillow reads 16-bit images of these formats into 32-bit integers, from 0 to 65535.
_SIXTEEN_AS_LONG = ("PNG", "PPM")
_BITS_PER_SAMPLE = 258
# How files of these formats end; what follows the end is left alone by all readers.
_ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "GIF": b"\x00;"}
_TAIL = 1024


@dataclass(frozen=True)
class Header:
    """What the header of an image says.

    Attributes:
        size: Width and height in pixels.
        grey: Whether it has no colours.
        full: What stands for white: 255, 65535, another power of two less one, or 1 where pixels
            are floating-point numbers.
        alpha: Whether it says how opaque its pixels are.
        cmyk: Whether its colours are those of printers.
    """

    size: tuple[int, int]
    grey: bool
    full: int = 255
    alpha: bool = False
    cmyk: bool = False


@contextmanager
def opened_image(image: bytes | Path, name: str) -> Iterator[Image.Image]:
    """An image whose header has been read and whose pixels have not.

    Args:
        image: The encoded image, or its file.
        name: How messages call it.

    Raises:
        DataError: If it is not an image of a known format, or too large; or if what is done with it
            raises anything, such as for pixels that are not there.
    """
    if not isinstance(image, Path) and not image:
        raise DataError(f"{name} has no image bytes; remove it.")
    if isinstance(image, Path) and not image.is_file():
        # A pipe would be waited for.
        raise DataError(f"{name} is not a file; remove it.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = io.BytesIO(image) if isinstance(image, bytes) else image
            with Image.open(source, formats=FORMATS) as opened:
                yield opened
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except Exception as error:
        reason = "not a readable image" if "cannot identify" in str(error) else str(error)
        raise DataError(f"{name} cannot be decoded ({reason}); repair or remove it.") from error


def read_header(opened: Image.Image, name: str) -> Header:
    """What the header of an opened image says.

    Raises:
        DataError: If it is too large, or of a type that does not say what its values mean.
    """
    width, height = opened.size
    if width * height > MOST_PIXELS:
        raise _too_large(name)
    mode = opened.mode
    if mode in _SIXTEEN or (mode == "I" and opened.format in _SIXTEEN_AS_LONG):
        tags = getattr(opened, "tag_v2", {})
        return Header(opened.size, True, 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1)
    if mode == "F":
        return Header(opened.size, True, 1)
    if mode not in (*_GREY, *_COLOUR):
        what = "signed or 32-bit whole numbers" if mode == "I" else f"pixels of the type {mode}"
        raise DataError(
            f"{name} has {what}, which do not say what is black and white; convert it to 8 or 16 "
            "bits."
        )
    alpha = mode in _ALPHA or "transparency" in opened.info
    return Header(opened.size, mode in _GREY, alpha=alpha, cmyk=mode == "CMYK")


def has_end(image: bytes | Path, kind: str | None) -> bool:
    """Whether a file surely ends as files of its format do.

    Args:
        image: The encoded image, or its file.
        kind: Its format.
    """
    end = _ENDS.get(kind or "")
    if end is None:
        return False
    if isinstance(image, bytes):
        return end in image[-_TAIL:]
    with image.open("rb") as file:
        file.seek(max(0, image.stat().st_size - _TAIL))
        return end in file.read()


def _too_large(name: str) -> DataError:
    return DataError(
        f"{name} has more than {MOST_PIXELS // 10**6} million pixels; make it smaller or remove it."
    )
