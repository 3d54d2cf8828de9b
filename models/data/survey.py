"""One quick pass over the headers of all images, before any time is spent on a search."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import DataError
from ..cache import cache_folder, cache_key
from ..progress import SILENT, Progress
from .decode import Decoder, check_decoding
from .encoded import EncodedFiles
from .headers import Header, has_end, opened_image, read_header

__all__ = ["Survey", "survey_images"]

# Raise it when headers are read otherwise: surveys of other versions are not used.
_VERSION = 1
_THREADS, _BATCH = 8, 512
_SAID = 2000
# More broken images than this share are no accident.
_LARGEST_SHARE = 0.1
_SHOWN = 3


class Survey(BaseModel):
    """What the headers of a set of images say.

    Attributes:
        images: How many there are.
        sizes: Width, height, how many images have that size, and the first of them.
        grey: How many have no colours.
        deep: How many have more than 8 bits a channel.
        floating: How many have floating-point pixels.
        alpha: How many have an alpha channel.
        cmyk: How many have the colours of printers.
        broken: Images that cannot be read, and why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    sizes: tuple[tuple[int, int, int, int], ...]
    grey: int
    deep: int
    floating: int
    alpha: int
    cmyk: int
    broken: dict[int, str]

    @property
    def whole(self) -> int:
        """How many can be read."""
        return self.images - len(self.broken)

    @property
    def channels(self) -> int:
        """Channels of most of them."""
        return 1 if 2 * self.grey > self.whole else 3

    def decoder(
        self, files: EncodedFiles, what: str, image_size: int | None, channels: int
    ) -> Decoder:
        """The decoder for these images.

        Args:
            files: The images.
            what: What messages call them.
            image_size: Side in pixels of the decoded images; that of all of them when None.
            channels: 1 or 3.

        Raises:
            DataError: If too many are broken, or they have several sizes and none is asked for.
        """
        if len(self.broken) > _LARGEST_SHARE * self.images:
            raise DataError(
                f"{len(self.broken)} of the {self.images} {what} cannot be read: "
                f"{next(iter(self.broken.values()))}"
            )
        if image_size is not None:
            return Decoder((channels, image_size, image_size), resize=True)
        width, height, _, _ = max(self.sizes, key=lambda size: size[2])
        for other_width, other_height, _, first in self.sizes:
            if (other_width, other_height) != (width, height):
                raise DataError(
                    f"{files.name(first)} is {other_width}x{other_height} but most {what} are "
                    f"{width}x{height}; set data.image_size to bring all images to one size."
                )
        return Decoder((channels, height, width), resize=False)

    def notes(self, files: EncodedFiles, what: str, channels: int) -> list[str]:
        """What is done with images that are not like the others, in sentences."""
        odd, as_what = (self.grey, "RGB") if channels == 3 else (self.whole - self.grey, "grey")
        counts = {
            f"{'grey' if channels == 3 else 'coloured'}; they are read as {as_what}": odd,
            "of more than 8 bits a channel; they are scaled to 8": self.deep,
            "of floating-point numbers; 0 is read as black and 1 as white": self.floating,
            "with an alpha channel, which is left out": self.alpha,
            "of CMYK colours; they are converted without a profile": self.cmyk,
        }
        notes = [
            f"{count} of the {self.images} {what} are {text}"
            for text, count in counts.items()
            if count
        ]
        if self.broken:
            names = [files.name(index) for index in list(self.broken)[:_SHOWN]]
            more = ", ..." if len(self.broken) > _SHOWN else ""
            notes.append(
                f"{len(self.broken)} of the {self.images} {what} cannot be read and are left out: "
                f"{', '.join(names)}{more}"
            )
        return notes

    def kept(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The images that can be read, int64, ascending."""
        return np.setdiff1d(np.arange(self.images), np.array(list(self.broken), dtype=np.int64))


def survey_images(files: EncodedFiles, what: str, progress: Progress = SILENT) -> Survey:
    """Look at the headers of all images, or take what was found of the same files before.

    A file that does not end as its format does is decoded, to see whether anything is missing.

    Args:
        files: The images.
        what: What messages call them.
        progress: Receives a step where there are many.
    """
    marks = cache_key({"version": _VERSION, "files": files.marks()})
    path = cache_folder() / "surveys" / f"{marks}.json"
    try:
        return Survey.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        pass
    survey = _look(files, what, progress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{id(survey)}")
        partial.write_text(survey.model_dump_json())
        partial.replace(path)
    except OSError:
        # Whoever opens the images next looks again.
        pass
    return survey


def _look(files: EncodedFiles, what: str, progress: Progress) -> Survey:
    said = len(files) > _SAID
    if said:
        progress.start(len(files), f"Looking at the headers of {len(files)} {what}")
    headers: list[Header] = []
    sizes: dict[tuple[int, int], list[int]] = {}
    broken: dict[int, str] = {}
    for index, found in _headers(files):
        if isinstance(found, str):
            broken[index] = found
        else:
            headers.append(found)
            sizes.setdefault(found.size, [0, index])[0] += 1
        if said:
            progress.advance()
    if said:
        progress.finish()
    return Survey(
        images=len(files),
        sizes=tuple((*size, count, first) for size, (count, first) in sizes.items()),
        grey=sum(header.grey for header in headers),
        deep=sum(header.full > 255 for header in headers),
        floating=sum(header.full == 1 for header in headers),
        alpha=sum(header.alpha for header in headers),
        cmyk=sum(header.cmyk for header in headers),
        broken=dict(sorted(broken.items())),
    )


def _headers(files: EncodedFiles) -> Iterator[tuple[int, Header | str]]:
    items = files.read(np.arange(len(files)))
    with ThreadPoolExecutor(_THREADS) as pool:
        while batch := list(itertools.islice(items, _BATCH)):
            yield from pool.map(_header, batch)


def _header(item: tuple[int, bytes | Path, str]) -> tuple[int, Header | str]:
    index, image, name = item
    try:
        with opened_image(image, name) as opened:
            header = read_header(opened, name)
            whole = has_end(image, opened.format)
        if not whole:
            check_decoding(image, name)
    except DataError as error:
        return index, str(error)
    return index, header
