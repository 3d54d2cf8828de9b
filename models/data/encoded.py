"""Images that files hold encoded: what folders and Parquet files have in common."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError
from .decode import Decoder
from .source import ImageSource, Indices

__all__ = ["EncodedImages", "check_data_folder"]


class EncodedImages(ImageSource):
    """Images that are decoded, all to one shape, when they are asked for.

    Args:
        labels: Class of every image, int64 [N].
        decoder: Decodes them.
    """

    def __init__(self, labels: Indices, decoder: Decoder) -> None:
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
        for place, encoded, name in self._read(indices):
            images[place] = self._decoder.decode(encoded, name)
        return torch.from_numpy(images)

    def fingerprint(self) -> str:
        """SHA-256 of the labels, the decoded shape, and what tells the files from others."""
        digest = hashlib.sha256(self._labels.tobytes())
        digest.update(repr(self._decoder).encode())
        for file in self._files():
            digest.update(file.encode())
        return digest.hexdigest()

    @abstractmethod
    def _read(self, indices: Indices) -> Iterator[tuple[int, bytes | Path, str]]:
        """The images at ``indices``, in any order.

        Yields:
            The place in ``indices``, the encoded image or its file, and its name for messages.
        """

    @abstractmethod
    def _files(self) -> Iterator[str]:
        """What tells each file from others, such as its name and size."""


def check_data_folder(root: Path) -> None:
    """Refuse a data folder that is not there.

    Raises:
        DataError: If it is not there.
    """
    if not root.is_dir():
        raise DataError(f"The data folder {root} does not exist; set data.root to one that does.")
