"""The pool's coordinator decides where each candidate is evaluated, and that it happens once.

A candidate goes through: asked -> (recorded? answered) -> queued -> sent to a worker -> recorded
-> answered. Whoever asks for a candidate on its way waits for the same answer.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import ClusterError, PruneTuneError, RunFolderError
from ..models.space import Candidate
from ..rewards.evaluation.evaluation import Evaluation
from ..rewards.evaluation.evaluations import sentence
from .lane import Job, Lane
from .lifeline import Lifeline
from .resources import EvaluatorResources, capacity
from .store import EvaluationStore
from .worker import EvaluatorFactory, lost_evaluation

# A candidate whose evaluator died is sent to another one so many times before it is to blame.
MAX_RETRIES = 3

_SCALING_SECONDS = 5.0


@dataclass(frozen=True)
class PoolStats:
    """What a pool has done since its coordinator started.

    Attributes:
        unique: Candidates evaluated, failed ones included.
        cached: Requests answered by the record or by an evaluation that was on its way already.
        failed: Candidates among ``unique`` whose evaluation ended with an error.
        per_second: ``unique`` over the seconds since the first request for a candidate.
        workers: Evaluator processes ready to evaluate now.
        waiting: Candidates asked for and not answered yet.
        lost_workers: Evaluator processes that died.
    """

    unique: int
    cached: int
    failed: int
    per_second: float
    workers: int
    waiting: int
    lost_workers: int


@dataclass
class _Counters:
    unique: int = 0
    cached: int = 0
    failed: int = 0
    lost_workers: int = 0
    first_request: float | None = None


@dataclass(frozen=True)
class PoolPlan:
    """How many workers a pool has and how they run.

    Attributes:
        workers: Number of evaluator processes, or ``None`` for as many as the cluster has room for.
        resources: What one of them occupies.
        patience: Seconds to wait, without a single worker placed, before giving up.
        lifeline: Of the driver, without which nothing is evaluated any more.
    """

    workers: int | None
    resources: EvaluatorResources = field(default_factory=EvaluatorResources)
    patience: float = 120.0
    lifeline: Lifeline = field(default_factory=Lifeline.of_this_process)


class Coordinator:
    """A Ray actor's class (asynchronous: all methods run on one event loop).

    Args:
        factory: The reference of the `EvaluatorFactory` in the object store, itself pickled: as a
            plain argument Ray would load the task here, and could not restart this actor safely.
        store: Where evaluations are kept.
        plan: How many workers there are.
    """

    def __init__(self, factory: bytes, store: EvaluationStore, plan: PoolPlan) -> None:
        from ray import cloudpickle

        plan.lifeline.depend()
        self._factory: EvaluatorFactory = cloudpickle.loads(factory)
        self._store = store
        self._plan = plan
        self._lanes: list[Lane] = []
        self._jobs: dict[Candidate, Job] = {}
        self._queue: asyncio.PriorityQueue[tuple[int, int, Job]] = asyncio.PriorityQueue()
        self._serial = itertools.count()
        self._finished: list[tuple[Job, Evaluation]] = []
        self._anything_finished = asyncio.Event()
        self._unwritten: dict[Candidate, Evaluation] = {}
        self._counters = _Counters()
        self._dense: Evaluation | None = None
        self._ready = asyncio.Event()
        self._failure: PruneTuneError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        """Evaluate candidates, or look them up.

        Args:
            candidates: Repetitions are allowed.

        Returns:
            One evaluation per candidate, in order.

        Raises:
            PruneTuneError: If the pool cannot evaluate at all (bad task, no resources, full disk).
        """
        self._start()
        if self._counters.first_request is None:
            self._counters.first_request = time.monotonic()
        answers = [self._ask(candidate) for candidate in candidates]
        waiting = {answer for answer in answers if isinstance(answer, asyncio.Future)}
        if waiting:
            # Unlike `gather`, `wait` leaves the shared futures alone when this caller is cancelled.
            await asyncio.wait(waiting)
        return [a.result() if isinstance(a, asyncio.Future) else a for a in answers]

    async def dense(self) -> Evaluation:
        """Return the dense network's evaluation; waits for the first worker.

        Raises:
            PruneTuneError: If no worker can be had or built.
        """
        self._start()
        await self._ready.wait()
        if self._failure is not None:
            raise self._failure
        assert self._dense is not None
        return self._dense

    async def stats(self) -> PoolStats:
        """Return the counts since this coordinator started."""
        counters = self._counters
        seconds = time.monotonic() - (counters.first_request or time.monotonic())
        return PoolStats(
            unique=counters.unique,
            cached=counters.cached,
            failed=counters.failed,
            per_second=counters.unique / seconds if seconds > 0 else 0.0,
            workers=sum(lane.state == "ready" for lane in self._lanes),
            waiting=len(self._jobs),
            lost_workers=counters.lost_workers,
        )

    async def worker_pids(self) -> list[int]:
        """Return the process ids of the workers that are ready."""
        return [lane.pid for lane in self._lanes if lane.state == "ready"]

    async def stop(self) -> None:
        """End all workers. Candidates on their way are dropped; recorded ones stay."""
        self._fail(ClusterError("The evaluator pool was stopped."))
        while self._jobs:  # what was evaluated is still recorded
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()

    # --- candidates -------------------------------------------------------------------------

    def _ask(self, candidate: Candidate) -> Evaluation | asyncio.Future[Evaluation]:
        candidate = tuple(candidate)
        recorded = self._store.get(candidate)
        if recorded is not None:
            self._counters.cached += 1
            return recorded
        on_its_way = self._jobs.get(candidate)
        if on_its_way is not None:
            self._counters.cached += 1
            return on_its_way.answer
        job = Job(candidate, asyncio.get_running_loop().create_future())
        if self._failure is not None:
            job.answer.set_exception(self._failure)
            return job.answer
        self._jobs[candidate] = job
        unwritten = self._unwritten.get(candidate)
        if unwritten is None:
            self._enqueue(job)
        else:
            self.finish(job, unwritten)
        return job.answer

    def _enqueue(self, job: Job) -> None:
        # Retried candidates go first: they have waited longest.
        self._queue.put_nowait((-job.tries, next(self._serial), job))

    def finish(self, job: Job, evaluation: Evaluation) -> None:
        """Take the evaluation of a candidate, which is answered once that is recorded."""
        self._finished.append((job, evaluation))
        self._anything_finished.set()

    def lost(self, jobs: Sequence[Job], reason: str) -> None:
        """Take back the candidates of a dead worker, the one it was working on first."""
        self._counters.lost_workers += 1
        for position, job in enumerate(jobs):
            # A worker evaluates in the order of sending, so only the first can have killed it.
            job.tries += position == 0
            if job.tries > MAX_RETRIES:
                self.finish(job, lost_evaluation(job.candidate, job.tries, reason))
            else:
                self._enqueue(job)

    async def _write(self) -> None:
        """Record finished candidates, then answer. One write serves all that finished meanwhile."""
        while True:
            await self._anything_finished.wait()
            self._anything_finished.clear()
            batch, self._finished = self._finished, []
            fresh = {job.candidate: evaluation for job, evaluation in batch}
            self._unwritten.update(fresh)
            try:
                await asyncio.to_thread(self._store.append, list(self._unwritten.values()))
            except Exception as error:
                # Kept in `_unwritten`: written with the next ones when there is room again.
                failure = RunFolderError(
                    f"Evaluations cannot be recorded ({sentence(error)}); make the run folder "
                    "writable, free space, and resume the run."
                )
                for job, _ in batch:
                    del self._jobs[job.candidate]
                    _settle(job, failure)
                continue
            self._counters.unique += len(self._unwritten)
            self._counters.failed += sum(e.error is not None for e in self._unwritten.values())
            self._unwritten.clear()
            for job, evaluation in batch:
                del self._jobs[job.candidate]
                _settle(job, evaluation)

    # --- workers ----------------------------------------------------------------------------

    def _start(self) -> None:
        # Not in __init__: Ray creates asynchronous actors before their event loop runs.
        if self._tasks:
            return
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._scale())]

    async def _scale(self) -> None:
        """Keep as many lanes as wanted, and give up when no worker ever finds a place."""
        last_placed = time.monotonic()
        while self._failure is None:
            wanted = self._plan.workers
            if wanted is None:
                wanted = max(1, await asyncio.to_thread(capacity, self._plan.resources))
            self._resize(wanted)
            if any(lane.state != "waiting" for lane in self._lanes):
                last_placed = time.monotonic()
            elif time.monotonic() - last_placed > self._plan.patience:
                self._fail(
                    ClusterError(
                        f"No evaluator got its {self._plan.resources} within "
                        f"{self._plan.patience:g} seconds, because other work occupies the "
                        "cluster; free resources or lower cluster.evaluator_cpus."
                    )
                )
            await asyncio.sleep(min(_SCALING_SECONDS, self._plan.patience / 2))

    def _resize(self, wanted: int) -> None:
        self._lanes = [lane for lane in self._lanes if not lane.retired]
        # Only lanes without a place are given up: their node has left the cluster.
        for lane in [lane for lane in self._lanes if lane.state == "waiting"]:
            if len(self._lanes) <= wanted:
                break
            lane.retire()
            self._lanes.remove(lane)
        while len(self._lanes) < wanted:
            lane = Lane(
                self._factory, self._plan.resources, self._plan.lifeline, self._queue, owner=self
            )
            self._lanes.append(lane)
            lane.start()

    def built(self, dense: Evaluation) -> None:
        """Count a worker that is ready."""
        self._dense = self._dense or dense
        self._ready.set()

    def unbuildable(self, error: PruneTuneError) -> None:
        """Give up, because a worker cannot build its evaluator."""
        # Once a worker was built the task is good, and a failure is one node's own trouble.
        if self._dense is None:
            self._fail(error)

    def _fail(self, error: PruneTuneError) -> None:
        self._failure = self._failure or error
        for lane in self._lanes:
            lane.retire()
        self._lanes.clear()
        finished = {job.candidate for job, _ in self._finished} | set(self._unwritten)
        for candidate in set(self._jobs) - finished:
            _settle(self._jobs.pop(candidate), self._failure)
        self._ready.set()


def _settle(job: Job, outcome: Evaluation | PruneTuneError) -> None:
    if job.answer.done():
        return
    if isinstance(outcome, PruneTuneError):
        job.answer.set_exception(outcome)
        # Its caller may be gone; asyncio would report an exception that nobody fetched.
        job.answer.exception()
    else:
        job.answer.set_result(outcome)
