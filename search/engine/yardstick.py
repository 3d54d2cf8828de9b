"""The yardstick before fine-tuning: accuracy that no reward of a comparison can see.

In the end searches are compared by test accuracy after fine-tuning. Whether a search is hopeless
has to be known earlier and without the test images: by the accuracy of its best candidate, fully
repaired as finalists are, on images from the training set that no measure reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ...cluster.pool import NAMESPACE
from ...errors import ClusterError, PruneTuneError
from ...models.data import LabelledImages, augment
from ...models.space import Candidate
from ...models.training import accuracy
from ..spec.model import StoppingSpec
from .preparing import PreparedFactory

__all__ = ["YardstickClient", "running_yardstick"]


class Yardstick:
    """Measures candidates; the actor behind `YardstickClient`.

    Args:
        factory: Builds task and evaluator.
        images: How many images; all there are, where there are fewer. They are augmented as
            the task's validation images are.
    """

    def __init__(self, factory: PreparedFactory, images: int) -> None:
        torch.set_num_threads(1)
        prepared = factory.prepare()
        self._evaluator = prepared.evaluator
        data, allowed = prepared.task.data, prepared.task.train_indices
        chosen = np.sort(np.random.default_rng(factory.seed).permutation(allowed)[:images])
        how = factory.task.augment_validation
        pixels = augment(data.train.load(chosen), how, factory.seed, mirror=data.mirror)
        labels = torch.from_numpy(data.train.labels[chosen])
        self._images = LabelledImages(data.normalise(pixels), labels)
        self._known: dict[Candidate, float] = {}

    def measure(self, widths: Candidate) -> float:
        """Accuracy in [0, 1] after full repair."""
        if widths not in self._known:
            network = self._evaluator.build(widths, "full")
            self._known[widths] = accuracy(network, self._images)
        return self._known[widths]


class YardstickClient:
    """Asks the yardstick of a run from any process of its cluster.

    Args:
        pool: Name of the run's evaluator pool.
    """

    def __init__(self, pool: str) -> None:
        self._name = _name(pool)

    def measure(self, widths: Candidate) -> float:
        """Accuracy of a candidate by the yardstick, in [0, 1].

        Raises:
            ClusterError: If its process died; the search is tried again.
        """
        import ray

        try:
            actor = ray.get_actor(self._name, namespace=NAMESPACE)
            return float(ray.get(actor.measure.remote(widths)))
        except (ValueError, ray.exceptions.RayError) as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, PruneTuneError):
                raise cause from None
            raise ClusterError(f"The yardstick of the run is gone: {error}") from error


@contextmanager
def running_yardstick(
    pool: str, factory: PreparedFactory, stopping: StoppingSpec | None
) -> Iterator[None]:
    """Keep the yardstick running where a comparison stops hopeless searches.

    Args:
        pool: Name of the run's evaluator pool.
        factory: Builds task and evaluator.
        stopping: When searches are stopped, if ever.
    """
    if stopping is None:
        yield
        return
    import ray

    # It works for seconds in a whole search, so it has no CPU of its own.
    actor = ray.remote(num_cpus=0, max_restarts=3, max_task_retries=3)(Yardstick)
    handle = actor.options(name=_name(pool), namespace=NAMESPACE).remote(factory, stopping.images)
    try:
        yield
    finally:
        ray.kill(handle)


def _name(pool: str) -> str:
    return f"{pool}-yardstick"
