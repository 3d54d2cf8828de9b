"""Data sets known by name: scikit-learn's digits, and torchvision's small ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torchvision

from ...errors import DataError
from ..cache import cache_folder
from .source import ArrayImages

__all__ = ["NORMALISATION", "digits_images", "torchvision_images"]

_Normalisation = tuple[tuple[float, ...], tuple[float, ...]]

# Means and standard deviations of all training pixels in [0, 1]; for digits, of all images.
NORMALISATION: dict[str, _Normalisation] = {
    "digits": ((0.3053,), (0.3761,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
}
"""(mean, std) a channel of the data sets known by name."""


@dataclass(frozen=True)
class _TorchvisionSet:
    dataset: Any
    folder: str


_TORCHVISION = {
    "cifar10": _TorchvisionSet(torchvision.datasets.CIFAR10, "cifar-10-batches-py"),
    "cifar100": _TorchvisionSet(torchvision.datasets.CIFAR100, "cifar-100-python"),
    "fashion-mnist": _TorchvisionSet(torchvision.datasets.FashionMNIST, "FashionMNIST/raw"),
}


def digits_images() -> tuple[ArrayImages, tuple[str, ...]]:
    """The 1,797 digits of 8x8 pixels that scikit-learn ships (UCI optdigits), and class names."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Grey values are counts from 0 to 16.
    pixels = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)
    return ArrayImages(pixels[:, None], digits.target), tuple(str(n) for n in range(10))


def torchvision_images(
    name: str, root: Path | None, download: bool
) -> tuple[ArrayImages, ArrayImages, tuple[str, ...]]:
    """Train and test images, and class names, of a torchvision data set.

    Args:
        name: ``cifar10``, ``cifar100`` or ``fashion-mnist``.
        root: The folder given to torchvision; ``data`` in the cache folder when None.
        download: Whether to download what is not there.

    Raises:
        DataError: If the data is not there, or cannot be downloaded or read.
    """
    known = _TORCHVISION[name]
    folder = cache_folder() / "data" if root is None else root.expanduser()
    try:
        if download:
            folder.mkdir(parents=True, exist_ok=True)
        train, test = (
            known.dataset(root=str(folder), train=part, download=download) for part in (True, False)
        )
    except Exception as error:
        if download:
            raise DataError(
                f"{name} cannot be downloaded to {folder} ({type(error).__name__}: {error})."
            ) from error
        raise DataError(
            f"{name} is not in {folder} (expected {folder / known.folder}); "
            "set data.root to where it is, or data.download: true."
        ) from error
    return _arrays(train), _arrays(test), tuple(train.classes)


def _arrays(dataset: Any) -> ArrayImages:
    pixels = np.asarray(dataset.data)
    images = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    return ArrayImages(images, np.asarray(dataset.targets))
