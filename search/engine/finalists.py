"""From the best candidates of each search to its network: repair, fine-tuning, one test."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ...cluster.resources import EvaluatorResources, check_room
from ...errors import ClusterError, EvaluationError, PruneTuneError
from ...models.builder import FinalRepair
from ...models.data.source import Indices
from ...models.progress import KeptNotes, Progress
from ...models.space import Candidate
from ...models.training import accuracy, train
from ...rewards.evaluation.evaluations import sentence
from ...rewards.measures.agreement import mean_divergence
from ..run.history import Asked
from ..spec.model import FinetuneSpec
from .preparing import PreparedFactory

__all__ = ["Finished", "finish_candidates", "test_dense", "training_images"]

_LOOK_SECONDS = 10.0
# Tells good candidates apart by fewer images than their accuracy does.
_TEMPERATURE = 4.0
_NOT_TUNED = "It is repaired; its fine-tuning has not ended."


@dataclass(frozen=True)
class Finished:
    """A candidate's network and its accuracies, which are fractions.

    Attributes:
        network: Slim and repaired, perhaps fine-tuned; on the CPU, float32, in evaluation mode.
        kept: Units kept of every channel group, in the order of groups.
        validation: On the validation images after the repair.
        validation_after: The same after fine-tuning.
        test_before: On the test images after the repair, before fine-tuning; ``None`` where they
            could not be read.
        test_after: The same after fine-tuning.
        notes: What a user should know of the repair.
        epochs: Epochs of fine-tuning that it has had.
        missing: What is not done to it yet, and why.
    """

    network: nn.Module
    kept: tuple[tuple[int, ...], ...]
    validation: float
    validation_after: float
    test_before: float | None
    test_after: float | None
    notes: tuple[str, ...] = ()
    epochs: int = 0
    missing: str | None = None


def finish_candidates(
    factory: PreparedFactory,
    finalists: Mapping[str, Sequence[Asked]],
    finetune: FinetuneSpec,
    resources: Mapping[str, float],
    progress: Progress,
    arrived: Callable[[str, Asked, Finished | PruneTuneError], None],
) -> None:
    """Choose among fully repaired finalists, train and test the best of each trial, in parallel.

    Candidates that several trials chose are worked on once. Of several finalists the one is taken
    that, fully repaired, agrees best with the dense network on the validation images; the test
    images are looked at once per network, when nothing is left to decide.

    Args:
        factory: Builds task and evaluator.
        finalists: By name of trial, at least one each.
        finetune: How the best are repaired and trained.
        resources: ``num_cpus`` and ``num_gpus`` of one piece of work.
        progress: Receives every piece that is done.
        arrived: Called for each trial as soon as its network is repaired, or cannot be had, and
            again when it is fine-tuned; where that fails, with the repaired one and the reason.
    """
    import ray

    # A network and images of a Python session may be large: they are shipped once.
    shipped = ray.put(factory)
    # Where there is only one there is nothing to choose.
    several = [chosen for chosen in finalists.values() if len(chosen) > 1]
    unique = {asked.candidate for chosen in several for asked in chosen}
    divergences: dict[Candidate, float | PruneTuneError] = {}

    def compared(candidate: Candidate, divergence: float | PruneTuneError) -> None:
        divergences[candidate] = divergence
        progress.advance()

    if unique:
        progress.start(len(unique), "Repairing the best candidates fully")
        pairs = {candidate: (_compare, shipped, candidate) for candidate in sorted(unique)}
        _in_parallel(pairs, resources, compared, progress)
        progress.finish()

    waiting: dict[Candidate, list[tuple[str, Asked]]] = {}
    for trial, chosen in finalists.items():
        # The first of equals is the one with the highest reward.
        best = min(chosen, key=lambda asked: _known(divergences.get(asked.candidate, 0.0)))
        waiting.setdefault(best.candidate, []).append((trial, best))
    repaired: dict[Candidate, Finished] = {}

    def tell(candidate: Candidate, result: Finished | PruneTuneError) -> None:
        for trial, asked in waiting[candidate]:
            arrived(trial, asked, result)
        progress.advance()

    def came(candidate: Candidate, result: Finished | PruneTuneError) -> None:
        for note in result.notes if isinstance(result, Finished) else ():
            progress.note(note)
        if finetune.epochs and isinstance(result, Finished) and result.missing is None:
            repaired[candidate] = result = replace(result, missing=_NOT_TUNED)
        tell(candidate, result)

    progress.start(len(waiting), "Repairing and testing the best candidates")
    jobs = {candidate: (_repair, shipped, candidate, finetune.repair) for candidate in waiting}
    _in_parallel(jobs, resources, came, progress)
    progress.finish()
    if not repaired:
        return

    def trained(candidate: Candidate, result: Finished | PruneTuneError) -> None:
        if isinstance(result, PruneTuneError):
            reason = f"It is repaired, but could not be fine-tuned: {result}"
            result = replace(repaired[candidate], missing=reason)
        tell(candidate, result)

    epochs = "an epoch" if finetune.epochs == 1 else f"{finetune.epochs} epochs"
    progress.start(len(repaired), f"Fine-tuning the best candidates for {epochs}")
    training = {
        candidate: (_finetune, shipped, result, finetune) for candidate, result in repaired.items()
    }
    _in_parallel(training, resources, trained, progress)
    progress.finish()


def test_dense(
    factory: PreparedFactory, resources: Mapping[str, float], progress: Progress
) -> float:
    """Accuracy of the dense network on the test images, worked out on the cluster.

    Raises:
        PruneTuneError: If it cannot be tested.
    """
    answers: list[Any] = []
    job: dict[Candidate, tuple[Any, ...]] = {(): (_test_dense, factory)}
    progress.start(1, "Testing the dense network")
    _in_parallel(job, resources, lambda _, answer: answers.append(answer), progress)
    progress.advance()
    progress.finish()
    if isinstance(answers[0], PruneTuneError):
        raise answers[0]
    return float(answers[0])


def _known(divergence: float | PruneTuneError) -> float:
    return math.inf if isinstance(divergence, PruneTuneError) else divergence


def _in_parallel(
    jobs: Mapping[Candidate, tuple[Any, ...]],
    resources: Mapping[str, float],
    arrived: Callable[[Candidate, Any], None],
    progress: Progress,
) -> None:
    """Run ``function(*arguments)`` per key as Ray tasks; what goes wrong is the result of its key.

    Raises:
        ClusterError: If no living node has the resources, for which Ray would wait for ever.
    """
    import ray

    needed = EvaluatorResources(resources["num_cpus"], resources["num_gpus"])
    # The worker of a task that was killed for memory or lost with its node is worth another try.
    remote = ray.remote(max_retries=3, **resources)(_call)
    pending = {remote.remote(*job): key for key, job in jobs.items()}
    try:
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=_LOOK_SECONDS)
            if not ready:
                check_room(needed)
                # Nothing is done, but whoever watches is told that something is under way.
                progress.advance(0)
                continue
            try:
                result = ray.get(ready[0])
            except ray.exceptions.RayError as error:
                # Perhaps the machine's fault: a resumed run tries it again.
                result = ClusterError(f"Its processes died: {sentence(error)}")
            arrived(pending.pop(ready[0]), result)
    finally:
        # Whoever is interrupted, or refused a room, does not let work go on that nobody waits for.
        for reference in pending:
            ray.cancel(reference, force=True)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    import ray

    cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1.0)
    torch.set_num_threads(max(1, int(cpus)))
    try:
        return function(*arguments)
    except PruneTuneError as error:
        return error
    except Exception as error:
        return EvaluationError(sentence(error))


def _compare(factory: PreparedFactory, candidate: Candidate) -> float:
    """How far the fully repaired candidate is from the dense network on the validation images."""
    prepared = factory.prepare()
    task = prepared.task
    network = prepared.evaluator.build(candidate, "full").eval()
    return mean_divergence(network, task.network, task.validation.images, _TEMPERATURE)


def _test_dense(factory: PreparedFactory) -> float:
    task = factory.prepare().task
    return accuracy(task.network, task.test())


def training_images(allowed: Indices, images: int | None, seed: int) -> Indices:
    """Images to train on, int64, ascending: the same ones for every network of a run."""
    if images is None or images >= len(allowed):
        return allowed
    chosen = np.random.default_rng(seed).choice(allowed, images, replace=False)
    return np.sort(chosen)


def _repair(factory: PreparedFactory, candidate: Candidate, repair: FinalRepair) -> Finished:
    prepared = factory.prepare()
    task, evaluator = prepared.task, prepared.evaluator
    said = KeptNotes()
    network = evaluator.build(candidate, repair, said).requires_grad_(False).eval()
    validation = accuracy(network, task.validation)
    test, missing = None, None
    try:
        test = accuracy(network, task.test())
    except PruneTuneError as error:
        missing = f"It is repaired, but could not be tested: {error}"
    return Finished(
        network=network,
        kept=tuple(tuple(int(unit) for unit in units) for units in evaluator.kept_units(candidate)),
        validation=validation,
        validation_after=validation,
        test_before=test,
        test_after=test,
        notes=tuple(said.notes),
        missing=missing,
    )


def _finetune(factory: PreparedFactory, repaired: Finished, finetune: FinetuneSpec) -> Finished:
    task, network = factory.prepare().task, repaired.network
    train(
        network,
        task.data,
        training_images(task.train_indices, finetune.images, factory.seed),
        finetune,
        factory.seed,
        teacher=task.network,
    )
    network.requires_grad_(False).eval()
    return replace(
        repaired,
        network=network,
        validation_after=accuracy(network, task.validation),
        test_after=accuracy(network, task.test()),
        epochs=finetune.epochs,
        missing=None,
    )
