"""Stopping hopeless searches: asynchronous successive halving by a yardstick no reward can see.

At a rung, a number of evaluations, a search is compared with those of the same budgets that came
there before it (ASHA: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning",
algorithm 2, in the form that stops rather than pauses). Decisions are files of the run, so that
they stand whatever is interrupted, and whoever reads the run can check them.

Searches differ in their rewards, so what counts is the yardstick alone. In the end searches are
compared by test accuracy after fine-tuning. Which of them are hopeless has to be known earlier and
without the test images: by the accuracy of a search's best candidate, fully repaired as finalists
are, on images from the training set that no measure reads.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...cluster.pool import NAMESPACE
from ...envs.budgets import limit_text
from ...errors import ClusterError, PruneTuneError, RunFolderError
from ...models.data import LabelledImages, augment
from ...models.space import Candidate
from ...models.training import accuracy
from ..run.files import write_durably
from ..spec.model import BudgetSpec, StoppingSpec
from .preparing import PreparedFactory

__all__ = ["Rungs", "YardstickClient", "running_yardstick", "stopped_at"]


class Rungs:
    """The rungs of one run.

    Args:
        folder: ``RUN/rungs``; made by the first decision.
        stopping: How searches are compared.
        evaluations: Candidates that each search may ask for.
    """

    def __init__(self, folder: Path, stopping: StoppingSpec, evaluations: int) -> None:
        self.folder = folder
        self._reduction = stopping.reduction
        self.rungs: tuple[int, ...] = tuple(_rungs(stopping, evaluations))

    def due(self, before: int, now: int) -> int | None:
        """The last rung that a search reached by going from ``before`` evaluations to ``now``."""
        reached = [rung for rung in self.rungs if before < rung <= now]
        return reached[-1] if reached else None

    def goes_on(self, rung: int, budgets: BudgetSpec, trial: str, yardstick: float) -> bool:
        """Decide once and for all whether a search goes on beyond a rung.

        Args:
            rung: Evaluations.
            budgets: Its budgets; only searches of equal ones are compared.
            trial: Its name.
            yardstick: Of its best candidate; higher is better.

        Returns:
            Whether it is among the best ``1 / reduction`` of those that have come there so far,
            itself included, rounded up; always while fewer than ``reduction`` have.

        Raises:
            RunFolderError: If the decision cannot be written.
        """
        place = self.folder / _budgets_folder(budgets) / f"{rung:08d}"
        path = place / f"{trial}.json"
        if path.is_file():
            return bool(_read(path)["goes_on"])
        others = [float(_read(each)["yardstick"]) for each in place.glob("*.json")]
        count = len(others) + 1
        better = sum(other > yardstick for other in others)
        decision = count < self._reduction or better < math.ceil(count / self._reduction)
        note = {"yardstick": yardstick, "better": better, "others": len(others)}
        try:
            place.mkdir(parents=True, exist_ok=True)
            write_durably(path, json.dumps({**note, "goes_on": decision}).encode())
        except OSError as error:
            raise RunFolderError(
                f"The file {path} cannot be written ({error.strerror or error}); free space or "
                "make the run folder writable, and resume the run."
            ) from error
        return decision


def stopped_at(folder: Path, trial: str) -> int | None:
    """The rung at which a search was stopped, if it was.

    Args:
        folder: ``RUN/rungs``.
        trial: Its name.
    """
    for path in sorted(folder.glob(f"*/*/{trial}.json")):
        if not _read(path)["goes_on"]:
            return int(path.parent.name)
    return None


def _rungs(stopping: StoppingSpec, evaluations: int) -> list[int]:
    rungs = []
    rung = max(1, round(stopping.first * evaluations))
    while rung < evaluations:
        rungs.append(rung)
        rung *= stopping.reduction
    return rungs


def _read(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
        return value
    except (OSError, ValueError) as error:
        raise RunFolderError(f"The file {path} cannot be read: {error}") from error


def _budgets_folder(budgets: BudgetSpec) -> str:
    text = ",".join(f"{cost}{limit_text(limit)}" for cost, limit in sorted(budgets.items()))
    return re.sub(r"[^\w.%,-]+", "-", text)


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

    def measure(self, candidate: Candidate) -> float:
        """Accuracy in [0, 1] after full repair."""
        if candidate not in self._known:
            network = self._evaluator.build(candidate, "full")
            self._known[candidate] = accuracy(network, self._images)
        return self._known[candidate]


class YardstickClient:
    """Asks the yardstick of a run from any process of its cluster.

    Args:
        pool: Name of the run's evaluator pool.
    """

    def __init__(self, pool: str) -> None:
        self._name = _actor_name(pool)

    def measure(self, candidate: Candidate) -> float:
        """Accuracy of a candidate by the yardstick, in [0, 1].

        Raises:
            ClusterError: If its process died; the search is tried again.
        """
        import ray

        try:
            actor = ray.get_actor(self._name, namespace=NAMESPACE)
            return float(ray.get(actor.measure.remote(candidate)))
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
    handle = actor.options(name=_actor_name(pool), namespace=NAMESPACE).remote(
        factory, stopping.images
    )
    try:
        yield
    finally:
        ray.kill(handle)


def _actor_name(pool: str) -> str:
    return f"{pool}-yardstick"
