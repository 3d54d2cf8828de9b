"""Images in folders named after their class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import DataError
from .decode import Decoder
from .encoded import EncodedImages, check_data_folder
from .source import Indices

__all__ = ["FolderImages", "class_folders", "split_folders"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
_TEST_FOLDERS = ("test", "val", "validation", "valid")


class FolderImages(EncodedImages):
    """Image files ``DIR/CLASS/**/*``, in order of class and name.

    Args:
        root: The folder with one folder a class.
        classes: Class names in order; their places are the labels.
        image_size: Side in pixels of the decoded images; that of the first one when None.

    Raises:
        DataError: If there is no image, or the first one cannot be decoded.
    """

    def __init__(self, root: Path, classes: tuple[str, ...], image_size: int | None) -> None:
        self._paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            found = sorted(
                path for path in (root / name).rglob("*") if path.suffix.lower() in _SUFFIXES
            )
            self._paths += found
            labels += [label] * len(found)
        if not self._paths:
            raise DataError(
                f"{root} has no images in its class folders; images end with "
                f"{', '.join(sorted(_SUFFIXES))}."
            )
        self._root = root
        decoder = Decoder.for_image(self._paths[0], str(self._paths[0]), image_size)
        super().__init__(np.array(labels, dtype=np.int64), decoder)

    def _read(self, indices: Indices) -> Iterator[tuple[int, Path, str]]:
        for place, index in enumerate(indices):
            yield place, self._paths[index], str(self._paths[index])

    def _files(self) -> Iterator[str]:
        """Names below the folder, and sizes."""
        for path in self._paths:
            yield f"{path.relative_to(self._root)}:{path.stat().st_size}"


def split_folders(root: Path) -> tuple[Path, Path | None]:
    """The folders with the train and test images.

    Returns:
        ``root/train`` and ``root/test`` (or ``val``), or ``root`` and None for a single folder of
        classes, which has to be split.

    Raises:
        DataError: If the folder is missing, or there is a train folder and no test folder.
    """
    check_data_folder(root)
    if not (root / "train").is_dir():
        return root, None
    for name in _TEST_FOLDERS:
        if (root / name).is_dir():
            return root / "train", root / name
    raise DataError(f"{root} has a folder train but no test split; add a folder test or val.")


def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the class folders in ``root``, in order.

    Raises:
        DataError: If there are fewer than two.
    """
    names = tuple(
        sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
    if len(names) < 2:
        raise DataError(f"{root} has {len(names)} class folders; at least two are needed.")
    return names
