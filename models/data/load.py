"""From a data spec to a data set."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..._references import is_reference, resolve
from ..._registry import Registry
from ...errors import DataError
from .folder import FolderImages, class_folders, split_folders
from .known import NORMALISATION, digits_images, torchvision_images
from .parquet import parquet_class_names, parquet_images
from .source import Data, ImageSource, Subset
from .spec import DataSpec

__all__ = ["DATA", "load_data"]

# The usual values for colour photographs (ImageNet); grey images are mapped to [-1, 1].
_COLOUR = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_GREY = ((0.5,), (0.5,))
_TEST_SHARE = 0.25


def load_data(spec: DataSpec) -> Data:
    """Open a data set. Images are decoded later, when they are needed.

    Args:
        spec: Which data set, where, and how it is normalised.

    Returns:
        The data set.

    Raises:
        UnknownNameError: If there is no such data set; the message suggests the nearest name.
        DataError: If it is missing, corrupt, without test images or inconsistent.
    """
    if is_reference(spec.name):
        return _from_user(spec)
    data = DATA.find(spec.name)(spec)
    _check_labels(data)
    return data


def _digits(spec: DataSpec) -> Data:
    """The 1,797 digits of 8x8 pixels that scikit-learn ships; nothing is downloaded."""
    images, names = digits_images()
    train, test = _split(images, spec.split_seed)
    return _data(spec, train, test, names, mirror=False)


def _torchvision(spec: DataSpec) -> Data:
    """In torchvision's layout, in `root`; with `download: true`, it is fetched."""
    train, test, names = torchvision_images(spec.name, spec.root, spec.download)
    return _data(spec, train, test, names)


def _folder(spec: DataSpec) -> Data:
    """One folder of images a class, in `root` or in its train and test: imagefolder:DIR."""
    train_root, test_root = split_folders(_root(spec))
    names = class_folders(train_root)
    train: ImageSource = FolderImages(train_root, names, spec.image_size)
    test: ImageSource
    if test_root is None:
        train, test = _split(train, spec.split_seed)
    else:
        unknown = sorted(set(class_folders(test_root)) - set(names))
        if unknown:
            raise DataError(
                f"{test_root} has classes that {train_root} lacks ({', '.join(unknown[:3])}); "
                "both must have the same class folders."
            )
        test = FolderImages(test_root, names, spec.image_size)
    return _data(spec, train, test, names)


def _parquet(spec: DataSpec) -> Data:
    """Parquet files in the Hugging Face image layout, in `root`: parquet:DIR."""
    root = _root(spec)
    train = parquet_images(root, "train", spec.image_size)
    test = parquet_images(root, "test", spec.image_size)
    return _data(spec, train, test, parquet_class_names(root))


DATA: Registry[Callable[[DataSpec], Data]] = Registry(
    "data set",
    {
        "digits": _digits,
        "cifar10": _torchvision,
        "cifar100": _torchvision,
        "fashion-mnist": _torchvision,
        "imagefolder": _folder,
        "parquet": _parquet,
    },
    forms={"FILE.py:FUNCTION": "A function that returns the user's own prunetune.models.Data."},
)
"""Our own data sets by name."""


def _from_user(spec: DataSpec) -> Data:
    function = resolve(spec.name, "data set")
    try:
        data = function()
    except Exception as error:
        raise DataError(
            f"The data set {spec.name!r} cannot be made: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(data, Data):
        raise DataError(
            f"The data set {spec.name!r} returned a {type(data).__name__}; "
            "it must return a prunetune.models.Data."
        )
    _check_labels(data)
    return data


def _data(
    spec: DataSpec,
    train: ImageSource,
    test: ImageSource,
    class_names: tuple[str, ...],
    mirror: bool = True,
) -> Data:
    if train.shape != test.shape:
        raise DataError(
            f"The train images of {spec.name!r} are {_text(train.shape)} but the test images are "
            f"{_text(test.shape)}; set data.image_size to bring them to one size."
        )
    channels = train.shape[0]
    if spec.mean is not None and spec.std is not None:
        mean, std = spec.mean, spec.std
    else:
        mean, std = NORMALISATION.get(spec.name, _COLOUR if channels == 3 else _GREY)
    if len(mean) != channels or len(std) != channels:
        raise DataError(
            f"data.mean has {len(mean)} and data.std {len(std)} values but the images of "
            f"{spec.name!r} have {channels} channels; give one value a channel."
        )
    return Data(
        name=spec.name,
        train=train,
        test=test,
        num_classes=len(class_names) or int(train.labels.max()) + 1,
        input_shape=train.shape,
        mean=mean,
        std=std,
        mirror=mirror,
        class_names=class_names,
    )


def _check_labels(data: Data) -> None:
    for name, source in (("train", data.train), ("test", data.test)):
        if not len(source):
            raise DataError(f"The data set {data.name!r} has no {name} images.")
        low, high = int(source.labels.min()), int(source.labels.max())
        if low < 0 or high >= data.num_classes:
            raise DataError(
                f"The {name} labels of {data.name!r} run from {low} to {high} but there are "
                f"{data.num_classes} classes; labels must be 0 to {data.num_classes - 1}."
            )
    if data.num_classes < 2:
        raise DataError(f"The data set {data.name!r} has one class; at least two are needed.")


def _split(source: ImageSource, seed: int) -> tuple[Subset, Subset]:
    """Keep a quarter of every class, chosen by ``seed``, for testing."""
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(source), dtype=bool)
    for label in np.unique(source.labels):
        members = generator.permutation(np.flatnonzero(source.labels == label))
        chosen[members[: math.ceil(len(members) * _TEST_SHARE)]] = True
    return Subset(source, np.flatnonzero(~chosen)), Subset(source, np.flatnonzero(chosen))


def _root(spec: DataSpec) -> Path:
    if spec.root is None:
        raise DataError(
            f"The data set {spec.name!r} needs a folder: write {spec.name}:DIR or set data.root."
        )
    return spec.root.expanduser()


def _text(shape: tuple[int, int, int]) -> str:
    return "x".join(str(size) for size in shape)
