"""What a data set is to the rest of the package: two sets of images that decode on request."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import DataError

__all__ = ["ArrayImages", "Data", "ImageSource", "Indices", "LabelledImages", "Subset"]

Indices = npt.NDArray[np.int64]


class ImageSource(ABC):
    """Labelled images of one size, decoded only when asked for."""

    @property
    @abstractmethod
    def labels(self) -> Indices:
        """Class of every image, int64 [N]."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""

    @property
    def decoded(self) -> bool:
        """Whether images are pixels in memory already, so that loading them cannot fail."""
        return False

    @abstractmethod
    def load(self, indices: Indices) -> Tensor:
        """Decode the images at ``indices`` [n], in that order, to uint8 [n, C, H, W].

        Images that come from a tensor or data set of the user's may be float32 instead.

        Raises:
            DataError: If an image cannot be read; the message says which one.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest that changes when the images or labels do."""

    def __len__(self) -> int:
        return len(self.labels)


class ArrayImages(ImageSource):
    """Images that are in memory already.

    Args:
        images: uint8 [N, C, H, W].
        labels: Integers [N].
    """

    def __init__(self, images: npt.NDArray[np.uint8], labels: npt.ArrayLike) -> None:
        self._images = np.ascontiguousarray(images)
        self._labels = np.asarray(labels, dtype=np.int64)

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
        """Copy the images at ``indices`` [n] to uint8 [n, C, H, W]."""
        return torch.from_numpy(self._images[indices])

    def fingerprint(self) -> str:
        """SHA-256 of the pixels and labels."""
        digest = hashlib.sha256(self._images.tobytes())
        digest.update(self._labels.tobytes())
        return digest.hexdigest()


class Subset(ImageSource):
    """Some images of another source.

    Args:
        source: The other source.
        indices: Its images that make this one, int64 [N].
    """

    def __init__(self, source: ImageSource, indices: Indices) -> None:
        self._source = source
        self._indices = indices

    @property
    def labels(self) -> Indices:
        """Class of every image, int64 [N]."""
        return self._source.labels[self._indices]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self._source.shape

    @property
    def decoded(self) -> bool:
        """Whether those of the other source are."""
        return self._source.decoded

    def load(self, indices: Indices) -> Tensor:
        """Decode the images at ``indices`` [n], in that order, to uint8 [n, C, H, W]."""
        return self._source.load(self._indices[indices])

    def fingerprint(self) -> str:
        """Digest of the other source and the choice from it."""
        chosen = hashlib.sha256(self._indices.tobytes()).hexdigest()
        return f"{self._source.fingerprint()}/{chosen}"


@dataclass(frozen=True)
class LabelledImages:
    """Images ready for a network.

    Attributes:
        images: Normalised, float32 [N, C, H, W].
        labels: int64 [N].
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
        name: As in the spec.
        train: Images that may be learned from.
        test: Images kept out of every search.
        num_classes: Number of classes.
        input_shape: (channels, height, width) of every image.
        mean: Per channel, of pixels in [0, 1]; subtracted from every image. Empty where images are
            what the network reads already.
        std: Per channel, of pixels in [0, 1]; every image is divided by it. Empty like ``mean``.
        mirror: Whether a mirrored image keeps its class (it does not for digits).
        class_names: One a class, or empty when the data has none.

    Raises:
        DataError: If ``mean`` and ``std`` are no finite numbers, of which one a channel is needed,
            or a ``std`` is not positive.
    """

    name: str
    train: ImageSource
    test: ImageSource
    num_classes: int
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirror: bool = True
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, values in (("mean", self.mean), ("std", self.std)):
            if values and len(values) != self.input_shape[0]:
                raise DataError(
                    f"The {what} of the data set {self.name!r} has {len(values)} values but its "
                    f"images have {self.input_shape[0]} channels; give one value a channel."
                )
            # As float32, in which images are normalised.
            numbers = torch.tensor([*values, *(1.0 / x for x in self.std if x)])
            if not bool(torch.isfinite(numbers).all()):
                raise DataError(
                    f"The {what} of the data set {self.name!r} is {values}; mean and std must be "
                    "finite numbers, and no std as good as 0."
                )
        if len(self.mean) != len(self.std) or min(self.std, default=1.0) <= 0.0:
            raise DataError(
                f"The data set {self.name!r} needs mean and std, one a channel, and every std must "
                "be positive."
            )

    def normalise(self, images: Tensor) -> Tensor:
        """What the network reads, float32 [n, C, H, W], of images that a source loaded.

        They lie in the usual order of memory, whatever the source keeps: a network may view them.

        Args:
            images: uint8 [n, C, H, W], or float32 with pixels in [0, 1].
        """
        full = 255.0 if images.dtype == torch.uint8 else 1.0
        # A format that is asked for by name sets strides even where there is one channel only.
        images = images.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        if not self.mean:
            return images
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).mul_(full).view(shape)
        scale = torch.tensor(self.std, device=images.device).mul_(full).reciprocal_().view(shape)
        return images.sub_(mean).mul_(scale)

    def labelled(self, source: ImageSource, indices: Indices | None = None) -> LabelledImages:
        """Decode and normalise images of ``source`` (all of them, or those at ``indices``)."""
        chosen = np.arange(len(source)) if indices is None else indices
        images = self.normalise(source.load(chosen))
        return LabelledImages(images, torch.from_numpy(source.labels[chosen]))
