"""How a user names a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..._references import is_reference

__all__ = ["DataSpec"]


class DataSpec(BaseModel):
    """A data set by name; a plain string is shorthand: ``digits`` or ``parquet:DIR``.

    Attributes:
        name: ``digits``, ``cifar10``, ``cifar100``, ``fashion-mnist``, ``imagefolder``,
            ``parquet``, or the user's own function as ``file.py:NAME``, which returns a ``Data``.
        root: Folder of the data; for the torchvision sets, the cache folder when left out.
        mean: Per channel, of pixels in [0, 1]; the data set's own when left out.
        std: Per channel, of pixels in [0, 1]; the data set's own when left out.
        download: Whether a torchvision set may be downloaded when it is not in ``root``.
        image_size: Side in pixels to which images are resized and cropped (``imagefolder`` and
            ``parquet``); when left out, images must be of one size already.
        channels: 1 to read images of ``imagefolder`` and ``parquet`` as grey, 3 as RGB; what most
            training images are when left out.
        split_seed: Where there is no test set (``digits``, a single image folder), it decides
            which quarter of the images is the test set. It is not the seed of a search, so that
            searches with other seeds never see each other's test images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = "digits"
    root: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    download: bool = False
    image_size: int | None = Field(default=None, ge=1)
    channels: Literal[1, 3] | None = None
    split_seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _read_shorthand(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name, _, root = value.partition(":")
        from_module = is_reference(value) and name not in FOLDER_DATA
        return {"name": value} if from_module or not root else {"name": name, "root": root}

    @model_validator(mode="after")
    def _check_normalisation(self) -> DataSpec:
        if (self.mean is None) != (self.std is None):
            raise ValueError("give both mean and std, or neither")
        if self.std is not None and min(self.std, default=0.0) <= 0.0:
            raise ValueError("every std must be positive")
        return self


FOLDER_DATA = ("cifar10", "cifar100", "fashion-mnist", "imagefolder", "parquet")
"""Names that may be followed by ``:DIR``."""
