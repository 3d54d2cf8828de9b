"""The task: a trained network and the images that steer, and in the end judge, its pruning."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from .._live import is_live
from .._references import is_reference, resolve
from .._sources import source_digests
from ..errors import DataError, WeightsError
from .cache import cache_folder, cache_key
from .coupling import GroupScope
from .data import Augmentation, Data, DataSpec, LabelledImages, augment, load_data
from .data.source import Indices
from .identity import TaskIdentity, hash_graph, hash_tensors, sample_outputs
from .live import LiveTask
from .progress import SILENT, Progress
from .training import TrainingSpec, train
from .weights import hash_weights, load_weights, save_weights
from .zoo import build_network, check_network
from .zoo.permanent import make_permanent

__all__ = ["PruningTask", "TaskSpec", "load_task"]

# Neither calibration nor validation takes more than this share of the training images.
_LARGEST_SHARE = 0.25
_CHECKED_IMAGES = 64


class TaskSpec(BaseModel):
    """Which network is pruned, and on which data.

    Attributes:
        model: A zoo name, ``torchvision:NAME``, ``timm:NAME``, ``path/to/file.py:NAME``, or
            ``live:NAME@DIGEST`` for a network and data that a Python session handed over
            (``prunetune.Task``).
        weights: The trained weights: safetensors, or what ``torch.save`` made of a state
            dictionary, whatever the ending. When left out the dense network is trained first, as
            ``training`` says, and cached.
        data: The data set, or its shorthand.
        calibration: Images whose labels are not used, for statistics; at most a quarter of the
            training images.
        validation: Labelled images that steer the search, from the training images and disjoint
            from ``calibration``; at most a quarter of the training images.
        augment_validation: How validation images are changed, once, by the seed: ``none``,
            ``crop-and-mirror`` or ``randaugment``. Advisable when the network was trained on these
            very images, which it may all be right on otherwise.
        groups: Channel groups that are decided: ``inner`` leaves those alone that residual
            connections tie together; ``all`` takes them too.
        training: How the dense network is trained where there are no weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    weights: Path | None = None
    data: DataSpec = DataSpec()
    calibration: int = Field(default=512, ge=1)
    validation: int = Field(default=2000, ge=1)
    augment_validation: Augmentation = "none"
    groups: GroupScope = "inner"
    training: TrainingSpec = TrainingSpec(epochs=30, batch_size=64, label_smoothing=0.1)


@dataclass(frozen=True)
class PruningTask:
    """A trained network with its images.

    Attributes:
        name: Model and data, for tables.
        network: The dense network, in evaluation mode, float32, on the CPU.
        input_shape: (channels, height, width) of an image.
        num_classes: Outputs of the network.
        calibration: Normalised images, float32 [N, C, H, W].
        validation: Labelled images that steer the search.
        data: The whole data set.
        train_indices: Images of ``data.train`` that may be trained on: all but validation.
        scope: Which channel groups are decided.
        identity: What the task is, part by part.
        digest: SHA-256 of it; equal digests mean equal evaluations.
    """

    name: str
    network: nn.Module
    input_shape: tuple[int, int, int]
    num_classes: int
    calibration: Tensor
    validation: LabelledImages
    data: Data
    train_indices: Indices
    scope: GroupScope
    identity: TaskIdentity
    digest: str

    @property
    def example_input(self) -> Tensor:
        """One normalised image, float32 [1, C, H, W], to trace the network with."""
        return self.calibration[:1]

    def test(self) -> LabelledImages:
        """Decode the test images. Only what a search has finished with may be judged by them."""
        return self.data.labelled(self.data.test)


@dataclass(frozen=True)
class _Splits:
    """Indices of training images, each int64 and in ascending order.

    Attributes:
        calibration: May be trained on, since their labels steer nothing.
        validation: May not.
        train: All but ``validation``.
    """

    calibration: Indices
    validation: Indices
    train: Indices


def load_task(
    spec: TaskSpec,
    seed: int,
    progress: Progress = SILENT,
    before_training: Callable[[nn.Module, Tensor], None] | None = None,
) -> PruningTask:
    """Load data and network, training the network first when it has no weights.

    Args:
        spec: Which network and data.
        seed: Decides the splits, the augmentation of validation images and the training.
        progress: Told of what takes long.
        before_training: Called before a network is trained, with one like it and an image
            [1, C, H, W]; what it raises ends the loading.

    Raises:
        PruneTuneError: If the data, network or weights are missing, broken or do not fit.
    """
    if is_live(spec.model):
        return _load_live(resolve(spec.model, "network"), spec, seed, progress)
    data = load_data(spec.data, progress)
    splits = _split(data, spec, seed, progress)
    network = _build(spec.model, data, seed, progress)
    calibration = data.normalise(data.train.load(splits.calibration))
    names = {"model": spec.model, "data": data.name}
    if spec.weights is not None:
        load_weights(network, spec.weights)
    else:
        check_network(network, calibration[:2], data.num_classes, **names)
        if before_training is not None:
            twin = _build(spec.model, data, seed)
            make_permanent(twin)
            before_training(twin, calibration[:1])
        _train_dense(network, data, splits, spec, seed, progress)
    note = make_permanent(network)
    if note is not None:
        progress.warn(note)
    check_network(network, calibration[:_CHECKED_IMAGES], data.num_classes, **names)
    validation = _validation(data, splits.validation, spec, seed)
    name = f"{spec.model} on {data.name}"
    return _task(name, network, data, splits.train, calibration, validation, spec)


def _build(model: str, data: Data, seed: int, progress: Progress = SILENT) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(model, data.num_classes, data.input_shape, progress)


def _load_live(live: LiveTask, spec: TaskSpec, seed: int, progress: Progress) -> PruningTask:
    """The task of a session's objects; what was not handed over is drawn from training images."""
    data = live.data
    drawn = {
        "calibration": spec.calibration if live.calibration is None else 0,
        "validation": spec.validation if live.validation is None else 0,
    }
    if live.note is not None:
        progress.warn(live.note)
    splits = _split(data, spec.model_copy(update=drawn), seed, progress)
    calibration, validation = live.calibration, live.validation
    if calibration is None:
        calibration = data.normalise(data.train.load(splits.calibration))
    if validation is None:
        validation = _validation(data, splits.validation, spec, seed)
    return _task(live.name, live.copy_network(), data, splits.train, calibration, validation, spec)


def _task(
    name: str,
    network: nn.Module,
    data: Data,
    train_indices: Indices,
    calibration: Tensor,
    validation: LabelledImages,
    spec: TaskSpec,
) -> PruningTask:
    identity = TaskIdentity.of(
        spec.model, spec.groups, network, calibration, validation.images, validation.labels
    )
    return PruningTask(
        name=name,
        network=network,
        input_shape=data.input_shape,
        num_classes=data.num_classes,
        calibration=calibration,
        validation=validation,
        data=data,
        train_indices=train_indices,
        scope=spec.groups,
        identity=identity,
        digest=identity.digest,
    )


def _split(data: Data, spec: TaskSpec, seed: int, progress: Progress) -> _Splits:
    count = len(data.train)
    largest = int(count * _LARGEST_SHARE)
    if largest < 1:
        raise DataError(
            f"The data set {data.name!r} has {count} training images; at least 4 are needed."
        )
    sizes = {}
    for name, asked in (("calibration", spec.calibration), ("validation", spec.validation)):
        sizes[name] = min(asked, largest)
        if asked > largest:
            progress.note(
                f"{name}: {largest} images, a quarter of the {count} training images "
                f"({asked} asked for)"
            )
    order = np.random.default_rng(seed).permutation(count)
    validation = np.sort(order[: sizes["validation"]])
    rest = order[sizes["validation"] :]
    return _Splits(np.sort(rest[: sizes["calibration"]]), validation, np.sort(rest))


def _validation(data: Data, indices: Indices, spec: TaskSpec, seed: int) -> LabelledImages:
    images = augment(data.train.load(indices), spec.augment_validation, seed, mirror=data.mirror)
    labels = torch.from_numpy(data.train.labels[indices])
    return LabelledImages(data.normalise(images), labels)


def _train_dense(
    network: nn.Module, data: Data, splits: _Splits, spec: TaskSpec, seed: int, progress: Progress
) -> None:
    """Train in place, or take the weights of the same training from the cache."""
    # Some images as the network reads them: what is in files may be converted otherwise one day.
    some = splits.train[:: max(1, len(splits.train) // _CHECKED_IMAGES)][:_CHECKED_IMAGES]
    pixels = data.normalise(data.train.load(some))
    facts = {
        "model": spec.model,
        "sources": source_digests([spec.model] if is_reference(spec.model) else []),
        "graph": hash_graph(network),
        "initial weights": hash_weights(network),
        # Rounded, because a network that was trained with more threads is the same.
        "initial outputs": [f"{x:.2g}" for x in sample_outputs(network, pixels)],
        "training": spec.training.model_dump(mode="json"),
        "seed": seed,
        "images": data.train.fingerprint(),
        "pixels": hash_tensors([pixels]),
        "indices": hashlib.sha256(splits.train.tobytes()).hexdigest(),
        "normalisation": [data.mean, data.std, data.mirror],
    }
    path = cache_folder() / "networks" / f"{cache_key(facts)}.safetensors"
    if path.is_file():
        progress.note(f"The dense {spec.model} comes from the cache: {path}")
        load_weights(network, path)
        return
    label = f"Training the dense {spec.model} on {data.name}"
    train(network, data, splits.train, spec.training, seed, progress=progress, label=label)
    try:
        save_weights(network.state_dict(), path)
    except WeightsError as error:
        # The trained network is worth more than the cache.
        progress.note(str(error))
