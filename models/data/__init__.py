"""Data sets: images that decode on request, their normalisation and augmentation."""

from __future__ import annotations

from .augment import Augmentation, augment, crop_and_mirror
from .load import DATA, load_data
from .source import ArrayImages, Data, ImageSource, LabelledImages, Subset
from .spec import DataSpec

__all__ = [
    "DATA",
    "ArrayImages",
    "Augmentation",
    "Data",
    "DataSpec",
    "ImageSource",
    "LabelledImages",
    "Subset",
    "augment",
    "crop_and_mirror",
    "load_data",
]
