"""Images in folders named after their class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import DataError
from .encoded import EncodedFiles, check_data_folder
from .source import Indices

__all__ = ["FolderFiles", "class_folders", "ignored_folders", "split_folders"]

_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".dib", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"),
}
_TRAIN_FOLDERS = ("train", "training")
_TEST_FOLDERS = ("test", "testing", "val", "validation", "valid")
# What operating systems and notebooks leave behind; hidden folders are no classes either.
_NO_CLASSES = {"__macosx", "__pycache__", "@eadir", "lost+found", "$recycle.bin"}
_SHOWN = 5


class FolderFiles(EncodedFiles):
    """Image files ``DIR/CLASS/**/*``, in order of class and name.

    Args:
        root: The folder with one folder a class.
        classes: Class names in order; their places are the labels.

    Attributes:
        notes: What of the folder is left alone, in sentences.

    Raises:
        DataError: If a class has a folder without images.
    """

    def __init__(self, root: Path, classes: tuple[str, ...]) -> None:
        self._paths: list[Path] = []
        labels: list[int] = []
        others: Counter[str] = Counter()
        for label, name in enumerate(classes):
            folder = root / name
            files = sorted(path for path in folder.rglob("*") if _is_file(path, folder))
            found = [path for path in files if path.suffix.lower() in _SUFFIXES]
            endings = Counter(p.suffix.lower() or p.name for p in files) - Counter(
                path.suffix.lower() for path in found
            )
            if not found and folder.is_dir():
                there = f" (there is {_listed(endings)})" if endings else ""
                raise DataError(
                    f"{folder} has no images{there}; images end with "
                    f"{', '.join(sorted(_SUFFIXES))}: convert them, or remove the folder."
                )
            others += endings
            self._paths += found
            labels += [label] * len(found)
        if not self._paths:
            raise DataError(f"{root} has no images in its class folders.")
        self.notes = (
            [f"Files of {root} that are no images by their endings: {_listed(others)}"]
            if others
            else []
        )
        super().__init__(root, np.array(labels, dtype=np.int64))

    def read(self, indices: Indices) -> Iterator[tuple[int, Path, str]]:
        """The files at ``indices``, in that order."""
        for place, index in enumerate(indices):
            yield place, self._paths[index], str(self._paths[index])

    def name(self, index: int) -> str:
        """The path of an image."""
        return str(self._paths[index])

    def paths(self) -> list[Path]:
        """The images, in order of class and name."""
        return self._paths


def split_folders(root: Path) -> tuple[Path, Path | None]:
    """The folders with the train and test images.

    A folder is a split if it is called like one and has folders in it: a class may be called
    ``train``, too.

    Returns:
        ``root/train`` and ``root/test`` (or ``training``, ``val``, ..., in any case), or ``root``
        and None for a single folder of classes, which has to be split.

    Raises:
        DataError: If the folder is missing, or there is one split without the other.
    """
    check_data_folder(root)
    splits = {
        path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir() and _inner(path)
    }
    train = next((splits[name] for name in _TRAIN_FOLDERS if name in splits), None)
    test = next((splits[name] for name in _TEST_FOLDERS if name in splits), None)
    if train is None and test is None:
        return root, None
    if train is None:
        raise DataError(
            f"{root} has a folder {test.name if test else ''} but no train split; add a folder "
            "train, or set data.root to the folder of the classes."
        )
    if test is None:
        raise DataError(
            f"{root} has a folder {train.name} but no test split; add a folder test or val, or set "
            f"data.root to {train}, of which a part is then kept for testing."
        )
    return train, test


def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the class folders in ``root``, in order.

    Raises:
        DataError: If there are fewer than two.
    """
    names = tuple(sorted(path.name for path in _inner(root)))
    if len(names) < 2:
        raise DataError(f"{root} has {len(names)} class folders; at least two are needed.")
    return names


def ignored_folders(root: Path) -> list[str]:
    """A sentence on the folders in ``root`` that are no classes; none where there are none."""
    names = {path.name for path in root.iterdir() if path.is_dir()}
    names -= {path.name for path in _inner(root)}
    if not names:
        return []
    return [f"Folders of {root} that are taken for no classes: {', '.join(sorted(names))}"]


def _inner(folder: Path) -> list[Path]:
    """The folders in a folder that may be classes."""
    return [
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name.lower() not in _NO_CLASSES
    ]


def _is_file(path: Path, folder: Path) -> bool:
    """Whether a path is a file that nothing hides, as macOS does with what it says of others."""
    inside = path.relative_to(folder).parts
    hidden = any(part.startswith(".") or part.lower() in _NO_CLASSES for part in inside)
    return not hidden and os.path.isfile(path)


def _listed(endings: Counter[str]) -> str:
    shown = [f"{count} {ending}" for ending, count in endings.most_common(_SHOWN)]
    return ", ".join(shown) + (", ..." if len(endings) > _SHOWN else "")
