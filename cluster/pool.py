"""The evaluator pool: workers shared by every trial of a run, and the client that asks them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

from ..errors import ClusterError, PruneTuneError
from ..models.space import Candidate
from ..rewards.evaluation.evaluation import Evaluation
from ..rewards.evaluation.evaluations import sentence
from .coordinator import Coordinator, PoolPlan, PoolStats
from .resources import EvaluatorResources, capacity, check_room
from .store import EvaluationStore
from .worker import EvaluatorFactory

NAMESPACE = "prunetune"

# A request is sent in parts, so that one caller with many candidates bounds the pool's queue.
_PART = 512
_PARTS_ON_THEIR_WAY = 4

# Requests that wait at the same time: one per trial and part, with room to spare.
_MAX_REQUESTS = 10_000


class PoolClient:
    """Asks a pool from any process of the cluster; blocks until there is an answer.

    Args:
        name: The pool's name.

    Raises:
        ClusterError: If there is no such pool.
    """

    def __init__(self, name: str) -> None:
        import ray

        self.name = name
        try:
            self._coordinator: Any = ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            raise ClusterError(
                f"There is no evaluator pool {name!r} on this cluster; its run has ended or died."
            ) from None

    def __reduce__(self) -> tuple[type[PoolClient], tuple[str]]:
        return PoolClient, (self.name,)

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        """Evaluate candidates on the workers, or look them up in the record.

        Args:
            candidates: Repetitions are allowed.

        Returns:
            One evaluation per candidate, in order, recorded on disk; a candidate that could not be
            evaluated has ``error`` set.

        Raises:
            PruneTuneError: If the pool cannot evaluate at all (bad task, no resources, full disk).
        """
        answers: list[Evaluation] = []
        parts: deque[Any] = deque()
        for start in range(0, len(candidates), _PART):
            if len(parts) == _PARTS_ON_THEIR_WAY:
                answers += self._get(parts.popleft())
            part = [tuple(candidate) for candidate in candidates[start : start + _PART]]
            parts.append(self._coordinator.evaluate.remote(part))
        while parts:
            answers += self._get(parts.popleft())
        return answers

    def dense(self) -> Evaluation:
        """Return the dense network's evaluation; waits for the first worker.

        Raises:
            PruneTuneError: If no worker can be had or built.
        """
        evaluation: Evaluation = self._get(self._coordinator.dense.remote())
        return evaluation

    def stats(self) -> PoolStats:
        """Return the counts since the pool started.

        Raises:
            ClusterError: If the pool is gone.
        """
        stats: PoolStats = self._get(self._coordinator.stats.remote())
        return stats

    def _get(self, reference: Any) -> Any:
        import ray

        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PruneTuneError):
                raise error.cause from None
            raise
        except ray.exceptions.RayActorError as error:
            raise ClusterError(
                f"The evaluator pool {self.name!r} is gone ({sentence(error)}); everything it "
                "evaluated is recorded: resume the run."
            ) from error


class EvaluatorPool:
    """The pool as the driver that started it sees it; a context manager that stops it.

    The pool ends with the driver's process, whatever ends that.
    """

    def __init__(self, name: str, coordinator: Any, factory: Any) -> None:
        self.name = name
        self._coordinator = coordinator
        # Workers started later still need it, and it lives as long as somebody holds it.
        self._factory = factory
        self._client = PoolClient(name)

    @classmethod
    def start(
        cls,
        name: str,
        factory: EvaluatorFactory,
        store: EvaluationStore,
        workers: int | Literal["auto"] = "auto",
        cpus: float = 1.0,
        gpus: float = 0.0,
        patience: float = 120.0,
    ) -> EvaluatorPool:
        """Start workers on the connected cluster and wait for the first to be ready.

        Args:
            name: Unique on the cluster.
            factory: Builds the evaluator, once in every worker; must pickle. What it holds is
                shipped to the workers through Ray's object store.
            store: Where evaluations are kept; must pickle, and opens again in the coordinator,
                which runs on this node.
            workers: How many, or ``"auto"``: as many as the cluster has room for at any time.
            cpus: CPUs (and threads) of one worker, > 0. Trials must ask for none.
            gpus: GPUs of one worker, >= 0; a fraction shares a GPU.
            patience: Seconds to wait while other work occupies the cluster.

        Raises:
            PruneTuneError: If the evaluator cannot be built, with the original sentence.
            ClusterError: If Ray is not connected, the name is taken or there is no room.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if not ray.is_initialized():
            raise ClusterError("Ray is not connected: call prunetune.cluster.connect first.")
        resources = EvaluatorResources(cpus, gpus)
        check_room(resources)
        if workers != "auto" and workers > (room := capacity(resources)):
            raise ClusterError(
                f"The cluster has room for {room} evaluators of {resources}, not for {workers}; "
                f"set cluster.evaluators to at most {room}, or to auto."
            )
        plan = PoolPlan(None if workers == "auto" else workers, resources, patience)
        reference = ray.put(factory)
        try:
            coordinator = (
                ray.remote(Coordinator)
                .options(
                    name=name,
                    namespace=NAMESPACE,
                    num_cpus=0,
                    max_concurrency=_MAX_REQUESTS,
                    # Its requests can be repeated: what was recorded is not evaluated again.
                    max_restarts=3,
                    max_task_retries=3,
                    # The record is in the run folder, which may be on this node only.
                    scheduling_strategy=NodeAffinitySchedulingStrategy(
                        ray.get_runtime_context().get_node_id(), soft=False
                    ),
                )
                .remote(ray.cloudpickle.dumps(reference), store, plan)
            )
        except ValueError as error:
            raise ClusterError(
                f"An evaluator pool named {name!r} is running on this cluster already; wait for "
                "its run to end, or stop it."
            ) from error
        pool = cls(name, coordinator, reference)
        try:
            pool.dense()
        except BaseException:
            pool.stop()
            raise
        return pool

    def client(self) -> PoolClient:
        """Return a client of this pool, which can be pickled."""
        return self._client

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        """See `PoolClient.evaluate`."""
        return self._client.evaluate(candidates)

    def dense(self) -> Evaluation:
        """See `PoolClient.dense`."""
        return self._client.dense()

    def stats(self) -> PoolStats:
        """See `PoolClient.stats`."""
        return self._client.stats()

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers that are ready, each on its own node."""
        import ray

        pids: list[int] = ray.get(self._coordinator.worker_pids.remote())
        return pids

    def stop(self) -> None:
        """End the workers and the coordinator. Recorded evaluations stay."""
        import ray

        try:
            ray.get(self._coordinator.stop.remote(), timeout=10)
        except (ray.exceptions.RayError, TimeoutError):
            pass
        ray.kill(self._coordinator)

    def __enter__(self) -> EvaluatorPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
