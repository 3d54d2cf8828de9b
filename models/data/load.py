"""From a data spec to a data set."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..._references import is_reference, resolve
from ..._registry import Registry
from ...errors import DataError
from ..progress import SILENT, Progress
from .encoded import EncodedFiles, EncodedImages
from .folder import FolderFiles, class_folders, ignored_folders, split_folders
from .known import NORMALISATION, digits_images, torchvision_images
from .labels import read_classes
from .parquet import parquet_class_names, parquet_files
from .source import Data, ImageSource, Indices, Subset
from .spec import DataSpec
from .survey import Survey, survey_images

__all__ = ["DATA", "load_data"]

# The usual values for colour photographs (ImageNet); grey images are mapped to [-1, 1].
_COLOUR = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_GREY = ((0.5,), (0.5,))
_TEST_SHARE = 0.25


def load_data(spec: DataSpec, progress: Progress = SILENT) -> Data:
    """Open a data set. Images are decoded later, when they are needed.

    Args:
        spec: Which data set, where, and how it is normalised.
        progress: Receives notes of what is odd about the images, and what is done with it.

    Returns:
        The data set.

    Raises:
        UnknownNameError: If there is no such data set; the message suggests the nearest name.
        DataError: If it is missing, corrupt, without test images or inconsistent.
    """
    if is_reference(spec.name):
        return _from_user(spec)
    data = DATA.find(spec.name)(spec, progress)
    _check_labels(data)
    return data


def _digits(spec: DataSpec, progress: Progress) -> Data:
    """The 1,797 digits of 8x8 pixels that scikit-learn ships; nothing is downloaded."""
    images, names = digits_images()
    train, test = _split(images, spec.split_seed)
    return _data(spec, train, test, names, mirror=False)


def _torchvision(spec: DataSpec, progress: Progress) -> Data:
    """In torchvision's layout, in `root`; with `download: true`, it is fetched."""
    train, test, names = torchvision_images(spec.name, spec.root, spec.download)
    return _data(spec, train, test, names)


def _folder(spec: DataSpec, progress: Progress) -> Data:
    """One folder of images a class, in `root` or in its train and test: imagefolder:DIR."""
    train_root, test_root = split_folders(_root(spec))
    names = class_folders(train_root)
    files, test_files = FolderFiles(train_root, names), None
    notes = ignored_folders(train_root) + files.notes
    if test_root is not None:
        unknown = sorted(set(class_folders(test_root)) - set(names))
        if unknown:
            raise DataError(
                f"{test_root} has classes that {train_root} lacks ({', '.join(unknown[:3])}); "
                "both must have the same class folders."
            )
        test_files = FolderFiles(test_root, names)
        notes += ignored_folders(test_root) + test_files.notes
    for note in notes:
        progress.note(note)
    if test_files is not None:
        return _encoded(spec, files, test_files, names, progress)
    survey = survey_images(files, "images", progress)
    channels = spec.channels or survey.channels
    images = _images(spec, files, files.labels, survey, channels, "images", progress)
    train, test = _split(images, spec.split_seed)
    return _data(spec, train, test, names)


def _parquet(spec: DataSpec, progress: Progress) -> Data:
    """Parquet files in the Hugging Face image layout, in `root`: parquet:DIR."""
    root = _root(spec)
    train, test = parquet_files(root, "train"), parquet_files(root, "test")
    return _encoded(spec, train, test, parquet_class_names(root), progress)


def _encoded(
    spec: DataSpec,
    train: EncodedFiles,
    test: EncodedFiles,
    names: tuple[str, ...],
    progress: Progress,
) -> Data:
    train_labels, test_labels, count = train.labels, test.labels, len(names)
    if not names:
        train_labels, test_labels, count, note = read_classes(train_labels, test_labels, spec.name)
        if note is not None:
            progress.note(note)
    what = "training images", "test images"
    surveys = [
        survey_images(files, each, progress)
        for files, each in zip((train, test), what, strict=True)
    ]
    # What training images are decides what test images are read as, too.
    channels = spec.channels or surveys[0].channels
    return _data(
        spec,
        _images(spec, train, train_labels, surveys[0], channels, what[0], progress),
        _images(spec, test, test_labels, surveys[1], channels, what[1], progress),
        names,
        num_classes=count,
    )


def _images(
    spec: DataSpec,
    files: EncodedFiles,
    labels: Indices,
    survey: Survey,
    channels: int,
    what: str,
    progress: Progress,
) -> ImageSource:
    """The images of some files that can be read."""
    decoder = survey.decoder(files, what, spec.image_size, channels)
    for note in survey.notes(files, what, channels):
        progress.note(note)
    images = EncodedImages(files, labels, decoder)
    return Subset(images, survey.kept()) if survey.broken else images


DATA: Registry[Callable[[DataSpec, Progress], Data]] = Registry(
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
    num_classes: int | None = None,
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
        num_classes=num_classes or len(class_names),
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
