"""Images that a user hands over in Python: tensors, data sets of torch, or our own sources."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from ...errors import DataError
from .source import ImageSource, Indices
from .source import Subset as SomeImages

__all__ = ["DatasetImages", "TensorImages", "given_images", "given_pixels"]

# Labels that a data set says of itself are compared with those of so many of its items.
_CHECKED = 16


class TensorImages(ImageSource):
    """Images in one tensor.

    Args:
        images: float32 or uint8 [N, C, H, W].
        labels: int64 [N].
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._images = images.detach().cpu().contiguous()
        self._labels: Indices = labels.detach().cpu().numpy().astype(np.int64)

    @property
    def labels(self) -> Indices:
        """Class of every image, int64 [N]."""
        return self._labels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        channels, height, width = self._images.shape[1:]
        return channels, height, width

    @property
    def decoded(self) -> bool:
        """They are."""
        return True

    def load(self, indices: Indices) -> Tensor:
        """Copy the images at ``indices`` [n], float32 or uint8 [n, C, H, W]."""
        return self._images[torch.from_numpy(np.asarray(indices))]

    def fingerprint(self) -> str:
        """SHA-256 of the pixels and labels."""
        digest = hashlib.sha256(self._images.numpy().tobytes())
        digest.update(self._labels.tobytes())
        return digest.hexdigest()


class DatasetImages(ImageSource):
    """A data set of torch whose items are read when they are needed.

    Random transforms of the data set draw the same numbers whenever the same items are read
    together, so that every process sees the same images.

    Args:
        dataset: Items are (image, label); images are float32 or uint8 tensors [C, H, W].
        labels: Class of every item, int64 [N].
    """

    def __init__(self, dataset: Dataset[Any], labels: Indices) -> None:
        self._dataset = dataset
        self._labels = labels
        self._shape = tuple(_item(dataset, 0)[0].shape)

    @property
    def labels(self) -> Indices:
        """Class of every image, int64 [N]."""
        return self._labels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        channels, height, width = self._shape
        return channels, height, width

    def load(self, indices: Indices) -> Tensor:
        """Read the items at ``indices`` [n], in that order: float32 or uint8 [n, C, H, W].

        Raises:
            DataError: If an item cannot be read or has another shape than the first one.
        """
        images = []
        with _own_randomness():
            for index in indices:
                image, _ = _item(self._dataset, int(index))
                if tuple(image.shape) != self._shape:
                    raise DataError(
                        f"Item {index} of the data set is {tuple(image.shape)} and the first one "
                        f"{self._shape}; resize all images to one size in its transform."
                    )
                images.append(image)
        return torch.stack(images)

    def fingerprint(self) -> str:
        """SHA-256 of all labels and of some images, spread over the data set."""
        digest = hashlib.sha256(self._labels.tobytes())
        chosen = np.unique(np.linspace(0, len(self) - 1, _CHECKED).astype(np.int64))
        digest.update(self.load(chosen).numpy().tobytes())
        return digest.hexdigest()


def given_images(given: Any, what: str) -> ImageSource:
    """Labelled images in one of the forms that a user may hand them over in.

    Args:
        given: A pair of tensors (images float32 or uint8 [N, C, H, W], labels int64 [N]), a data
            set of torch of (image, label), or an `ImageSource`.
        what: For messages, such as ``train``.

    Raises:
        DataError: If it is none of these, has no labels or is empty.
    """
    if isinstance(given, ImageSource):
        source = given
    elif isinstance(given, Tensor):
        raise DataError(
            f"{what} is a single tensor, which has no labels; give a pair (images, labels)."
        )
    elif isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[0], Tensor):
        source = _pair(given, what)
    elif hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        with _own_randomness():
            source = _dataset(given, what)
    else:
        raise DataError(
            f"{what} is a {type(given).__name__}; give a pair of tensors (images, labels), or a "
            "torch Dataset of (image, label) that has a length."
        )
    if not len(source):
        raise DataError(f"{what} has no images.")
    if int(source.labels.min()) < 0:
        raise DataError(f"{what} has the label {int(source.labels.min())}; labels begin at 0.")
    return source


def given_pixels(given: Any, what: str) -> Tensor:
    """Images without labels, float32 or uint8 [N, C, H, W]; labels that are there are left out.

    Raises:
        DataError: If they are in no form that `given_images` or a plain tensor has.
    """
    if isinstance(given, Tensor):
        return _checked_pixels(given, what)
    source = given_images(given, what)
    return source.load(np.arange(len(source)))


def _pair(pair: Sequence[Any], what: str) -> TensorImages:
    if len(pair) < 2:
        raise DataError(f"{what} has no labels; give a pair (images, labels).")
    images, labels = _checked_pixels(pair[0], what), torch.as_tensor(pair[1])
    if labels.is_floating_point() or labels.ndim != 1:
        raise DataError(
            f"The labels of {what} are {_short(labels)}; they must be whole numbers [N], the "
            "class of every image."
        )
    if len(labels) != len(images):
        raise DataError(f"{what} has {len(images)} images and {len(labels)} labels.")
    return TensorImages(images, labels)


def _checked_pixels(images: Any, what: str) -> Tensor:
    images = torch.as_tensor(images)
    if images.ndim != 4 or images.dtype not in (torch.float32, torch.uint8):
        raise DataError(
            f"The images of {what} are {_short(images)}; they must be float32 or uint8 [N, C, H, W]"
            ", such as images.float() with a dimension for the channels."
        )
    if not len(images):
        raise DataError(f"{what} has no images.")
    return images


def _dataset(dataset: Any, what: str) -> ImageSource:
    if isinstance(dataset, TensorDataset):
        return _pair(dataset.tensors, what)
    if isinstance(dataset, Subset):
        whole = _dataset(dataset.dataset, what)
        indices: Indices = np.asarray(dataset.indices, dtype=np.int64)
        if isinstance(whole, TensorImages):
            return TensorImages(whole.load(indices), torch.from_numpy(whole.labels[indices]))
        return SomeImages(whole, indices)
    if not len(dataset):
        raise DataError(f"{what} has no images.")
    try:
        _item(dataset, 0)
    except DataError as error:
        raise DataError(f"{what}: {error}") from error.__cause__
    labels = _own_labels(dataset)
    if labels is not None:
        return DatasetImages(dataset, labels)
    # Only reading every item tells the labels, so the images are kept on the way.
    items = [_item(dataset, index) for index in range(len(dataset))]
    images = torch.stack([image for image, _ in items])
    return TensorImages(images, torch.tensor([label for _, label in items]))


def _own_labels(dataset: Any) -> Indices | None:
    """What a data set of torchvision says of its labels, where its items say the same."""
    said = getattr(dataset, "targets", getattr(dataset, "labels", None))
    try:
        labels = np.asarray(said, dtype=np.int64)
    except (TypeError, ValueError):
        return None
    if labels.shape != (len(dataset),):
        return None
    chosen = np.unique(np.linspace(0, len(labels) - 1, _CHECKED).astype(int))
    same = all(_item(dataset, int(index))[1] == labels[index] for index in chosen)
    return labels if same else None


def _item(dataset: Any, index: int) -> tuple[Tensor, int]:
    try:
        item = dataset[index]
    except Exception as error:
        raise DataError(
            f"Item {index} of the data set cannot be read: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(
            f"Item {index} of the data set is a {type(item).__name__} without a label; items must "
            "be (image, label)."
        )
    image, label = item
    if (
        not isinstance(image, Tensor)
        or image.ndim != 3
        or image.dtype
        not in (
            torch.float32,
            torch.uint8,
        )
    ):
        raise DataError(
            f"The image of item {index} is {_short(image)}; give the data set a transform that "
            "makes float32 or uint8 tensors [C, H, W], such as torchvision's ToTensor()."
        )
    try:
        return image, int(label)
    except (TypeError, ValueError):
        raise DataError(
            f"The label of item {index} is {label!r}; labels must be whole numbers from 0."
        ) from None


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor {list(value.shape)}"
    return f"a {type(value).__name__}"


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Random numbers that do not depend on what happened before, and leave no trace."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(0)
            np.random.seed(0)
            torch.manual_seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
