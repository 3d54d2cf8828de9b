"""From the numbers that label images in a file to classes 0, 1, 2, ..."""

from __future__ import annotations

import numpy as np

from ...errors import DataError
from .source import Indices

__all__ = ["read_classes"]

# Beyond so many classes, those of which there is about one an image are measurements.
_FEW = 100
_LARGEST_SHARE = 0.5
_SHOWN = 5


def read_classes(
    train: Indices, test: Indices, name: str
) -> tuple[Indices, Indices, int, str | None]:
    """Classes of images that are labelled with any whole numbers.

    Labels that are classes already stay, even if no image has one of them. Where they do not begin
    at 0, or most numbers below the highest are missing, they are numbered anew in their order.

    Args:
        train: Labels of training images, int64 [N].
        test: Labels of test images, int64 [M].
        name: The data set, for messages.

    Returns:
        Classes of both, their number, and what was done, in a sentence, or None.

    Raises:
        DataError: If labels are negative, are numbers rather than classes, or are those of test
            images only.
    """
    known = np.unique(train)
    if known[0] < 0:
        raise DataError(
            f"The train labels of {name!r} run from {known[0]} to {known[-1]}; labels begin at 0, "
            "so remove the images without a class."
        )
    if len(known) > max(_FEW, _LARGEST_SHARE * len(train)):
        raise DataError(
            f"The {len(train)} training images of {name!r} have {len(known)} different labels, "
            f"from {known[0]} to {known[-1]}; give a column of classes."
        )
    if known[0] == 0 and 2 * len(known) > known[-1]:
        return train, test, int(known[-1]) + 1, None
    unknown = np.setdiff1d(test, known)
    if len(unknown):
        raise DataError(
            f"Test images of {name!r} have labels that no training image has "
            f"({_listed(unknown)}); remove them, or add training images of these classes."
        )
    note = (
        f"The labels of {name} ({_listed(known)}) are numbered anew: they are read as classes 0 to "
        f"{len(known) - 1}, in this order"
    )
    return np.searchsorted(known, train), np.searchsorted(known, test), len(known), note


def _listed(labels: Indices) -> str:
    shown = ", ".join(str(label) for label in labels[:_SHOWN])
    return shown if len(labels) <= _SHOWN else f"{shown}, ..., {labels[-1]}"
