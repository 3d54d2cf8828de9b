"""A lane: one place for an evaluator process, refilled with a new process whenever it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..errors import ClusterError, PruneTuneError
from ..models.space import Candidate
from ..rewards.evaluation.evaluation import Evaluation
from ..rewards.evaluation.evaluations import failed_evaluation, sentence
from .lifeline import Lifeline
from .resources import EvaluatorResources
from .worker import Built, EvaluatorFactory, EvaluatorWorker

# One candidate is evaluated while the next already waits in the process: no gap between them.
DEPTH = 2

# Processes in a row that may die while building their evaluator before the task is blamed.
_MAX_BUILD_DEATHS = 3

_HEARTBEAT_SECONDS = 5.0
_MAX_PAUSE_SECONDS = 30.0


@dataclass(eq=False)
class Job:
    """A candidate on its way.

    Attributes:
        candidate: The candidate.
        answer: Resolved once its evaluation is recorded.
        tries: Processes that died while evaluating it.
    """

    candidate: Candidate
    answer: asyncio.Future[Evaluation]
    tries: int = 0


class LaneOwner(Protocol):
    """Receives what happens in a lane."""

    def finish(self, job: Job, evaluation: Evaluation) -> None:
        """Receives the evaluation of a candidate."""

    def lost(self, jobs: Sequence[Job], reason: str) -> None:
        """Receives the unfinished candidates of a worker that died, in the order they were sent."""

    def built(self, dense: Evaluation) -> None:
        """Learns that a worker is ready."""

    def unbuildable(self, error: PruneTuneError) -> None:
        """Learns that a worker cannot build its evaluator."""


class Lane:
    """Starts a worker process, feeds it from the queue, and replaces it when it dies.

    Args:
        factory: Reference of the pickled evaluator factory.
        resources: What the process occupies.
        lifeline: Of the driver, without which the process ends.
        queue: Shared by all lanes; (rank, serial number, job), lowest first.
        owner: Receives what happens here.
    """

    def __init__(
        self,
        factory: EvaluatorFactory,
        resources: EvaluatorResources,
        lifeline: Lifeline,
        queue: asyncio.PriorityQueue[tuple[int, int, Job]],
        owner: LaneOwner,
    ) -> None:
        self.state: Literal["waiting", "building", "ready"] = "waiting"
        self.pid = 0
        self.retired = False
        self._factory = factory
        self._resources = resources
        self._lifeline = lifeline
        self._queue = queue
        self._owner = owner
        self._sent: list[Job] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to run on the current event loop."""
        self._task = asyncio.create_task(self._run())

    def retire(self) -> None:
        """Stop for good and end the process."""
        self.retired = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        import ray

        deaths = 0
        while not self.retired:
            worker = _spawn(self._resources, self._lifeline)
            try:
                built = await self._build(worker)
                if built.dense is not None:
                    deaths = 0
                    self.state = "ready"
                    self._owner.built(built.dense)
                    reason = await self._serve(worker)
                    lost, self._sent = self._sent, []
                    self._owner.lost(lost, reason)
                elif built.error is not None:
                    deaths += 1
                    self._owner.unbuildable(built.error)
            except ray.exceptions.RayError as error:
                deaths += 1
                if deaths >= _MAX_BUILD_DEATHS:
                    self._owner.unbuildable(
                        ClusterError(
                            f"{deaths} evaluator processes in a row died before they could "
                            f"evaluate anything (last: {sentence(error)}); check their memory."
                        )
                    )
            finally:
                self.state = "waiting"
                # Also when it only seemed dead: nothing may evaluate outside of our books.
                ray.kill(worker)
            await asyncio.sleep(min(0.25 * (2.0**deaths - 1), _MAX_PAUSE_SECONDS))

    async def _build(self, worker: Any) -> Built:
        import ray

        self.pid = await worker.ping.remote()
        self.state = "building"
        try:
            built: Built = await worker.build.remote(self._factory)
        except ray.exceptions.RayTaskError as error:
            # The factory itself could not be unpickled there.
            cause = error.cause if error.cause is not None else error
            return Built(
                None, ClusterError(f"A worker cannot load the evaluator: {sentence(cause)}")
            )
        return built

    async def _serve(self, worker: Any) -> str:
        """Feed the process until it dies, and return the reason."""
        tasks = [asyncio.create_task(self._feed(worker)) for _ in range(DEPTH)]
        tasks.append(asyncio.create_task(self._watch(worker)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _feed(self, worker: Any) -> str:
        import ray

        while True:
            _, _, job = await self._queue.get()
            self._sent.append(job)
            try:
                evaluation = await worker.evaluate.remote(job.candidate)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if error.cause is not None else error
                evaluation = failed_evaluation(job.candidate, sentence(cause))
            except ray.exceptions.RayError as error:
                return sentence(error)
            self._sent.remove(job)
            self._owner.finish(job, evaluation)

    async def _watch(self, worker: Any) -> str:
        """Notice the death of an idle process before a candidate is sent to it."""
        import ray

        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            if self._sent:
                continue
            try:
                await worker.ping.remote()
            except ray.exceptions.RayError as error:
                return sentence(error)


def _spawn(resources: EvaluatorResources, lifeline: Lifeline) -> Any:
    import ray

    return (
        ray.remote(EvaluatorWorker)
        .options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_restarts=0,
            runtime_env={"env_vars": resources.environment},
        )
        .remote(lifeline)
    )
