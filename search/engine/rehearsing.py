"""What comes after a search is tried before it: decoding the images, and one training step."""

from __future__ import annotations

import numpy as np

from ...errors import DataError, NetworkError
from ...models.data.source import ImageSource, Indices
from ...models.progress import Progress
from ...models.training import try_training
from ..spec.model import SearchSpec
from .finalists import training_images
from .preparing import Prepared

__all__ = ["rehearse"]

_PIECE = 512


def rehearse(spec: SearchSpec, prepared: Prepared, progress: Progress) -> None:
    """Make sure that what is found can be tested and, where the spec asks for it, be fine-tuned.

    Every image that will be needed is decoded once, and the uniform candidate takes one training
    step; nothing of either is kept.

    Args:
        spec: What is going to happen.
        prepared: The task.
        progress: Receives the decoding's progress.

    Raises:
        DataError: If an image cannot be decoded; the message says which one.
        NetworkError: If the network cannot be trained; says why, and what to do.
    """
    task = prepared.task
    chosen = training_images(task.train_indices, spec.finetune.images, prepared.factory.seed)
    if spec.finetune.epochs:
        problem = next(iter(prepared.problems.values()))
        candidate = tuple(problem.action_map.uniform.tolist())
        network = prepared.evaluator.build(candidate, "none")
        how, seed = spec.finetune, prepared.factory.seed
        try:
            try_training(network, task.data, chosen, how, seed, teacher=task.network)
        except NetworkError as error:
            raise NetworkError(
                f"{error} Without fine-tuning it can be pruned: set finetune.epochs to 0."
            ) from error
    needed = [(task.data.test, np.arange(len(task.data.test)))]
    if spec.finetune.epochs:
        needed.append((task.data.train, chosen))
    encoded = [each for each in needed if not each[0].decoded]
    if not encoded:
        return
    progress.start(sum(len(indices) for _, indices in encoded), "Decoding every image once")
    for source, indices in encoded:
        _decode(source, indices, progress)
    progress.finish()


def _decode(source: ImageSource, indices: Indices, progress: Progress) -> None:
    for start in range(0, len(indices), _PIECE):
        piece = indices[start : start + _PIECE]
        try:
            source.load(piece)
        except DataError as error:
            raise DataError(f"{error} It would be needed after the search.") from error
        progress.advance(len(piece))
