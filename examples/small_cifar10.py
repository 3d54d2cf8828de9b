"""A part of CIFAR-10, for a comparison that two cores can run in an hour or two."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from prunetune.models.data import Data, DataSpec, Subset, load_data

_ROOT = Path(__file__).resolve().parent / "cifar10"
_TRAIN, _TEST = 6000, 5000


def small_cifar10() -> Data:
    """The first 6,000 training and the first 5,000 test images, from ``cifar10`` beside this."""
    spec = DataSpec(
        name="parquet", root=_ROOT, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    data = load_data(spec)
    return replace(
        data,
        name="small-cifar10",
        train=Subset(data.train, np.arange(_TRAIN)),
        test=Subset(data.test, np.arange(_TEST)),
    )
