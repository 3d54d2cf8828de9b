"""A task of objects: a network and images that a Python session holds, not files and names."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._sources import code_digest
from ..errors import DataError, NetworkError
from .data import Data, LabelledImages
from .data.given import given_images, given_pixels
from .identity import hash_graph, hash_tensors
from .weights import hash_weights
from .zoo import check_network
from .zoo.adapt import own_activations, unwrap
from .zoo.permanent import make_permanent

__all__ = ["LiveTask", "make_live_task", "own_copy"]

_CHECKED_IMAGES = 64


@dataclass(frozen=True, eq=False)
class LiveTask:
    """What a user handed over; goes to other processes by value.

    Attributes:
        name: For people.
        network: A copy of the user's, in evaluation mode, float32, on the CPU.
        data: The images; its classes are the network's outputs.
        calibration: What the network reads, float32 [N, C, H, W]; None where a search draws it
            from the training images.
        validation: Images that steer the search; None where they are drawn likewise.
        digest: SHA-256 of weights, graph, the code of the user's classes, and images.
        note: What was changed of the network, for people.
    """

    name: str
    network: nn.Module
    data: Data
    calibration: Tensor | None
    validation: LabelledImages | None
    digest: str
    note: str | None = None

    def copy_network(self) -> nn.Module:
        """The dense network, to be changed freely."""
        return copy.deepcopy(self.network)


def make_live_task(
    network: nn.Module,
    train: Any,
    test: Any = None,
    *,
    calibration: Any = None,
    validation: Any = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    mirror: bool = False,
    name: str | None = None,
) -> LiveTask:
    """Check what a user hands over, and make one thing of it.

    Args:
        network: Any classifier; it is copied and not changed.
        train: Labelled images, as `prunetune.models.data.given.given_images` takes them; or a
            whole `Data`, which brings its test images and normalisation along.
        test: The same; never seen by a search.
        calibration: Images whose labels are not used, labelled or as one tensor.
        validation: Labelled images that steer a search.
        mean: Per channel, of pixels in [0, 1]; None means that images are what the network reads.
        std: Likewise.
        mirror: Whether a mirrored image keeps its class.
        name: For people; the network's class when left out.

    Raises:
        DataError: If images or labels are missing, malformed or ambiguous.
        NetworkError: If the network cannot run on them, or its outputs do not fit the labels.
    """
    if not isinstance(network, nn.Module):
        raise NetworkError(
            f"The network is a {type(network).__name__}; give a torch.nn.Module, or describe the "
            "task by names with prunetune.Task.from_spec({...})."
        )
    name = name or type(unwrap(network)[0]).__name__
    own, note = _own_copy(network)
    data = _data(train, test, mean, std, mirror, name)
    example = data.normalise(data.train.load(np.arange(min(_CHECKED_IMAGES, len(data.train)))))
    data = _with_classes(data, _count_outputs(own, example, name), validation)
    check_network(own, example, data.num_classes, model=name, data=data.name)
    pixels = None if calibration is None else given_pixels(calibration, "calibration")
    ready = None if pixels is None else data.normalise(_read(pixels, data, "calibration"))
    labelled = None if validation is None else _labelled(validation, data)
    digest = _digest(own, data, ready, labelled)
    return LiveTask(name, own, data, ready, labelled, digest, note)


def own_copy(network: nn.Module) -> nn.Module:
    """A copy of the user's network in evaluation mode, float32, on the CPU, to be changed freely.

    Parameters that it computes on every call are made permanent.

    Raises:
        NetworkError: If it cannot be copied.
    """
    return _own_copy(network)[0]


def _own_copy(network: nn.Module) -> tuple[nn.Module, str | None]:
    """A copy, and what was changed of it, for people."""
    network, wrapped = unwrap(network)
    # What a network computed and kept cannot be copied together with how it was computed.
    known: dict[int, Any] = {
        id(value): value.detach().clone()
        for module in network.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        own = copy.deepcopy(network, known)
    except Exception as error:
        raise NetworkError(
            f"The network cannot be copied ({type(error).__name__}: {error}); give one that "
            "copy.deepcopy copies, for example by detaching tensors that it holds."
        ) from error
    own = own.float().cpu().eval().requires_grad_(True)
    own_activations(own)
    notes = [note for note in (wrapped, make_permanent(own)) if note is not None]
    return own, " ".join(notes) or None


def _data(
    train: Any,
    test: Any,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    mirror: bool,
    name: str,
) -> Data:
    if isinstance(train, Data):
        if test is not None or mean is not None or std is not None:
            raise DataError(
                "train is a whole prunetune.models.Data, which has test images and normalisation "
                "already; leave test, mean and std out."
            )
        return train
    if test is None:
        raise DataError("There are no test images; give test=, which no search looks at.")
    sources = {"train": given_images(train, "train"), "test": given_images(test, "test")}
    shape = sources["train"].shape
    if sources["test"].shape != shape:
        raise DataError(
            f"The train images are {list(shape)} and the test images "
            f"{list(sources['test'].shape)}; bring them to one size."
        )
    if (mean is None) != (std is None):
        raise DataError("Give both mean and std, or neither.")
    if mean is not None and std is not None:
        if len(mean) != shape[0] or len(std) != shape[0]:
            raise DataError(f"mean and std need {shape[0]} numbers each, one a channel.")
    for what, source in sources.items():
        some = source.load(np.arange(min(_CHECKED_IMAGES, len(source))))
        if mean is not None and some.dtype != torch.uint8 and not _is_share(some):
            raise DataError(
                f"The {what} images are numbers from {some.min():g} to {some.max():g}, but mean "
                "and std are of pixels in [0, 1]; divide the images by what stands for white."
            )
        if mean is None and some.dtype == torch.uint8:
            raise DataError(
                f"The {what} images are uint8, which no network reads; give mean and std of pixels "
                "in [0, 1], such as mean=(0,) and std=(1,) for a network that reads [0, 1]."
            )
    return Data(
        name=f"images of {name}",
        train=sources["train"],
        test=sources["test"],
        num_classes=0,
        input_shape=shape,
        mean=tuple(mean or ()),
        std=tuple(std or ()),
        mirror=mirror,
    )


def _is_share(images: Tensor) -> bool:
    # Resized images may be a little beyond.
    return bool((images > -0.1).all()) and bool((images < 1.1).all())


@torch.no_grad()
def _count_outputs(network: nn.Module, images: Tensor, name: str) -> int:
    """The outputs of a network, or 0 where `check_network` has something to say about it."""
    try:
        outputs = network(images)
    except Exception:
        return 0
    fits = isinstance(outputs, Tensor) and outputs.ndim == 2
    return int(outputs.shape[1]) if fits else 0


def _with_classes(data: Data, outputs: int, validation: Any) -> Data:
    """Classes are outputs, so that data with the labels of some classes only is fine."""
    highest = max(int(source.labels.max()) for source in (data.train, data.test))
    if validation is not None:
        highest = max(highest, int(given_images(validation, "validation").labels.max()))
    if outputs and highest >= outputs:
        raise NetworkError(
            f"The network has {outputs} outputs but labels go up to {highest}; labels must be 0 to "
            f"{outputs - 1}."
        )
    return Data(**{**vars(data), "num_classes": outputs or highest + 1})


def _labelled(validation: Any, data: Data) -> LabelledImages:
    source = given_images(validation, "validation")
    images = _read(source.load(np.arange(len(source))), data, "validation")
    return LabelledImages(data.normalise(images), torch.from_numpy(source.labels))


def _read(images: Tensor, data: Data, what: str) -> Tensor:
    if tuple(images.shape[1:]) != data.input_shape:
        raise DataError(
            f"The {what} images are {list(images.shape[1:])} and the train images "
            f"{list(data.input_shape)}; bring them to one size."
        )
    if not data.mean and images.dtype == torch.uint8:
        raise DataError(f"The {what} images are uint8; give mean and std of pixels in [0, 1].")
    return images


def _digest(
    network: nn.Module, data: Data, calibration: Tensor | None, validation: LabelledImages | None
) -> str:
    digest = hashlib.sha256(hash_weights(network).encode())
    digest.update(hash_graph(network).encode())
    for kind in sorted({type(module) for module in network.modules()}, key=str):
        digest.update(code_digest(kind).encode())
    digest.update(repr((data.mean, data.std, data.mirror)).encode())
    for source in (data.train, data.test):
        digest.update(source.fingerprint().encode())
    given = [] if validation is None else [validation.images, validation.labels]
    digest.update(hash_tensors(given if calibration is None else [calibration, *given]).encode())
    return digest.hexdigest()
