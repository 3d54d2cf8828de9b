"""Images in folders named after their class."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError
from .decode import Decoder
from .source import ImageSource, Indices

__all__ = ["FolderImages", "class_folders", "split_folders"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
_TEST_FOLDERS = ("test", "val", "validation", "valid")


class FolderImages(ImageSource):
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
        self._labels = np.array(labels, dtype=np.int64)
        self._decoder = Decoder.for_image(self._paths[0], str(self._paths[0]), image_size)

    @property
    def labels(self) -> Indices:
        """Class of every image, int64 [N]."""
        return self._labels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self._decoder.shape

    def load(self, indices: Indices) -> Tensor:
        """Decode the images at ``indices`` [n], in that order, to uint8 [n, C, H, W]."""
        images = np.empty((len(indices), *self.shape), dtype=np.uint8)
        for place, index in enumerate(indices):
            images[place] = self._decoder.decode(self._paths[index], str(self._paths[index]))
        return torch.from_numpy(images)

    def fingerprint(self) -> str:
        """SHA-256 of the files' names and sizes, the labels and the decoded shape."""
        digest = hashlib.sha256(self._labels.tobytes())
        digest.update(repr(self._decoder).encode())
        for path in self._paths:
            digest.update(f"{path.relative_to(self._root)}:{path.stat().st_size}".encode())
        return digest.hexdigest()


def split_folders(root: Path) -> tuple[Path, Path | None]:
    """The folders with the train and test images.

    Returns:
        ``root/train`` and ``root/test`` (or ``val``), or ``root`` and None for a single folder of
        classes, which has to be split.

    Raises:
        DataError: If the folder is missing, or there is a train folder and no test folder.
    """
    if not root.is_dir():
        raise DataError(f"The data folder {root} does not exist; set data.root to one that does.")
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
