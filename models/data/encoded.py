"""Images that files hold encoded: what folders and Parquet files have in common."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError
from .decode import Decoder
from .source import ImageSource, Indices

__all__ = ["EncodedFiles", "EncodedImages", "check_data_folder"]


class EncodedFiles(ABC):
    """Encoded images with labels, as they lie in files; nothing of them is decoded.

    Args:
        root: The folder that names of files start from.
        labels: Label of every image, int64 [N].
    """

    def __init__(self, root: Path, labels: Indices) -> None:
        self._root = root
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, indices: Indices) -> Iterator[tuple[int, bytes | Path, str]]:
        """The images at ``indices``, in any order.

        Yields:
            The place in ``indices``, the encoded image or its file, and its name for messages.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """How messages call an image."""

    @abstractmethod
    def paths(self) -> list[Path]:
        """The files, each once, in order."""

    def marks(self) -> str:
        """SHA-256 of names, sizes and times of change, which is found quickly."""
        digest = hashlib.sha256()
        for path in self.paths():
            stat = path.stat()
            digest.update(f"{path.absolute()}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 of labels, names and contents, wherever the folder lies."""
        digest = hashlib.sha256(self.labels.tobytes())
        for path in self.paths():
            digest.update(f"\n{path.relative_to(self._root)}:{path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


class EncodedImages(ImageSource):
    """Images that are decoded, all to one shape, when they are asked for.

    Args:
        files: What holds them.
        labels: Class of every image, int64 [N].
        decoder: Decodes them.
    """

    def __init__(self, files: EncodedFiles, labels: Indices, decoder: Decoder) -> None:
        self._files = files
        self._labels = labels
        self._decoder = decoder

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
        for place, encoded, name in self._files.read(indices):
            images[place] = self._decoder.decode(encoded, name)
        return torch.from_numpy(images)

    def fingerprint(self) -> str:
        """SHA-256 of the files, the classes and the decoded shape."""
        digest = hashlib.sha256(self._files.fingerprint().encode())
        digest.update(self._labels.tobytes())
        digest.update(repr(self._decoder).encode())
        return digest.hexdigest()


def check_data_folder(root: Path) -> None:
    """Refuse a data folder that is not there.

    Raises:
        DataError: If it is not there.
    """
    if not root.is_dir():
        raise DataError(f"The data folder {root} does not exist; set data.root to one that does.")
