"""The evaluator pool on a real Ray, with real deaths."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from prunetune.cluster import EvaluatorPool, PoolClient
from prunetune.errors import ClusterError, NetworkError, PruneTuneError, RunFolderError
from prunetune.rewards.evaluation.evaluation import Evaluation
from prunetune.search.run.record import EvaluationRecord, RecordKey, read_record

# Workers cannot import this module: what it defines is shipped to them by value.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

KEY = RecordKey("task", "1", "fp32", "none")
DENSE = (8, 8)


class LoggingEvaluator:
    """Evaluates by a formula, and notes every evaluation in a file.

    Args:
        log: One line ``PID WIDTHS`` is appended at the start of each evaluation, one line
            ``PID built`` when an evaluator is built.
        seconds: How long an evaluation takes.
    """

    def __init__(self, log: Path, seconds: float = 0.0) -> None:
        self.log = log
        self.seconds = seconds
        self._note("built")

    @property
    def dense(self) -> Evaluation:
        """The evaluation of the dense network."""
        return self._compute(DENSE)

    def evaluate(self, widths: tuple[int, ...]) -> Evaluation:
        """666 kills the process, 13 raises."""
        self._note(" ".join(map(str, widths)))
        time.sleep(self.seconds)
        if widths[0] == 666:
            os._exit(1)
        if widths[0] == 13:
            raise ValueError("unlucky\nsecond line")
        return self._compute(widths)

    def _compute(self, widths: tuple[int, ...]) -> Evaluation:
        return Evaluation(widths, {"sum": float(sum(widths))}, {"flops": 0.5})

    def _note(self, text: str) -> None:
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()} {text}\n")


def threads_of_torch() -> LoggingEvaluator:
    import torch

    raise NetworkError(f"{torch.get_num_threads()} threads")


def bad_task() -> LoggingEvaluator:
    raise NetworkError("The network returns NaN; check its weights.")


def crashing_task() -> LoggingEvaluator:
    raise RuntimeError("shapes do not match\nand more")


def dying_task() -> LoggingEvaluator:
    os._exit(1)


class Started:
    """A running pool with its record's folder and its evaluators' log."""

    def __init__(self, folder: Path, workers: int, seconds: float = 0.0, cpus: float = 1.0) -> None:
        self.folder = folder / "evaluations"
        self.log = folder / "log"
        self.pool = EvaluatorPool.start(
            folder.name,
            functools.partial(LoggingEvaluator, self.log, seconds),
            EvaluationRecord(self.folder, KEY),
            workers=workers,
            cpus=cpus,
        )
        wait_until(lambda: self.pool.stats().workers == workers)

    def evaluated(self, mark: int) -> Counter[tuple[int, ...]]:
        """How often the evaluation of each candidate was begun; ``mark`` is its second width."""
        lines = [line.split()[1:] for line in self.log.read_text().splitlines()]
        widths = [tuple(map(int, line)) for line in lines if line != ["built"]]
        return Counter(w for w in widths if w[1] == mark)

    def recorded(self, mark: int) -> list[tuple[int, ...]]:
        """The candidates on disk, sorted; ``mark`` is their second width."""
        rows = read_record(self.folder).column("candidate").to_pylist()
        return sorted(tuple(widths) for widths in rows if widths[1] == mark)


def wait_until(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def two_workers(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """One pool for many tests: each has its own second width, and leaves two workers behind.

    It leaves one of the two CPUs to the other pools of this module.
    """
    started = Started(tmp_path_factory.mktemp("two-workers"), workers=2, seconds=0.05, cpus=0.5)
    yield started
    started.pool.stop()


def test_answers_come_in_order_and_are_recorded(two_workers: Started) -> None:
    candidates = [(i, 1) for i in range(20, 0, -1) if i != 13]
    answers = two_workers.pool.evaluate(candidates)
    assert [answer.candidate for answer in answers] == candidates
    assert [answer.measures["sum"] for answer in answers] == [i + 1.0 for i, _ in candidates]
    assert two_workers.recorded(1) == sorted(candidates)
    assert two_workers.pool.evaluate([]) == []
    assert two_workers.pool.dense().candidate == DENSE
    lines = [line.split() for line in two_workers.log.read_text().splitlines()]
    assert len({pid for pid, *rest in lines if rest != ["built"]}) == 2, "both workers evaluate"


def test_a_candidate_is_evaluated_once_whoever_asks(two_workers: Started) -> None:
    @ray.remote(num_cpus=0)
    def trial(name: str) -> list[Evaluation]:
        return PoolClient(name).evaluate([(i, 2) for i in (1, 2, 3, 4, 2, 1)])

    before = two_workers.pool.stats()
    answers = ray.get([trial.remote(two_workers.pool.name) for _ in range(3)])
    assert answers[0] == answers[1] == answers[2]
    assert two_workers.evaluated(2) == Counter({(i, 2): 1 for i in (1, 2, 3, 4)})
    after = two_workers.pool.stats()
    assert (after.unique - before.unique, after.cached - before.cached) == (4, 14)
    assert after.failed == before.failed and after.waiting == 0


def test_an_evaluator_that_raises_costs_only_its_candidate(two_workers: Started) -> None:
    before = two_workers.pool.stats()
    bad, good = two_workers.pool.evaluate([(13, 6), (1, 6)])
    assert bad.error == "ValueError: unlucky"
    assert good.error is None
    assert two_workers.pool.evaluate([(13, 6)]) == [bad]
    assert two_workers.pool.stats().failed == before.failed + 1
    assert two_workers.evaluated(6)[(13, 6)] == 1


@pytest.mark.slow
def test_a_killed_worker_costs_nobody_an_answer(two_workers: Started) -> None:
    candidates = [(i, 3) for i in range(1, 81) if i != 13]
    answers: list[Evaluation] = []
    asking = threading.Thread(target=lambda: answers.extend(two_workers.pool.evaluate(candidates)))
    asking.start()
    lost = two_workers.pool.stats().lost_workers
    wait_until(lambda: len(two_workers.evaluated(3)) > 10)
    os.kill(two_workers.pool.worker_pids()[0], signal.SIGKILL)
    asking.join()
    assert [answer.candidate for answer in answers] == candidates
    assert all(answer.error is None for answer in answers)
    assert two_workers.recorded(3) == sorted(candidates), "each is recorded exactly once"
    wait_until(lambda: two_workers.pool.stats().workers == 2)
    assert two_workers.pool.stats().lost_workers == lost + 1


@pytest.mark.slow
def test_a_poisonous_candidate_fails_alone_after_three_retries(two_workers: Started) -> None:
    candidates = [(666, 4), *((i, 4) for i in range(1, 41) if i != 13)]
    poisoned, *others = two_workers.pool.evaluate(candidates)
    assert poisoned.error is not None and "4 evaluator processes died" in poisoned.error
    assert all(other.error is None for other in others)
    assert two_workers.evaluated(4)[(666, 4)] == 4
    assert two_workers.recorded(4) == sorted(candidates)
    wait_until(lambda: two_workers.pool.stats().workers == 2)


@pytest.mark.slow
def test_an_idle_worker_that_dies_is_replaced(two_workers: Started) -> None:
    dead = two_workers.pool.worker_pids()[0]
    os.kill(dead, signal.SIGKILL)
    wait_until(lambda: len(set(two_workers.pool.worker_pids()) - {dead}) == 2)


@pytest.mark.slow
def test_a_coordinator_that_dies_goes_on_from_the_record(two_workers: Started) -> None:
    candidates = [(i, 5) for i in range(1, 61) if i != 13]
    answers: list[Evaluation] = []
    asking = threading.Thread(target=lambda: answers.extend(two_workers.pool.evaluate(candidates)))
    asking.start()
    wait_until(lambda: len(two_workers.evaluated(5)) > 10)
    coordinator = ray.get_actor(two_workers.pool.name, namespace="prunetune")
    ray.kill(coordinator, no_restart=False)
    asking.join()
    assert [answer.candidate for answer in answers] == candidates
    assert two_workers.recorded(5) == sorted(candidates)
    repeated = sum(two_workers.evaluated(5).values()) - len(candidates)
    # Two in each worker, and what was being written.
    assert repeated <= 6, "only candidates on their way when it died are evaluated again"


@pytest.mark.slow
def test_a_second_pool_answers_from_the_record_of_the_first(tmp_path: Path) -> None:
    for _ in range(2):
        started = Started(tmp_path, workers=1)
        started.pool.evaluate([(1, 6), (2, 6)])
        started.pool.stop()
    assert started.evaluated(6) == Counter({(1, 6): 1, (2, 6): 1})


def test_stopping_frees_the_name_and_the_clients_say_so(tmp_path: Path) -> None:
    started = Started(tmp_path, workers=1)
    client: PoolClient = pickle.loads(pickle.dumps(started.pool.client()))
    assert client.evaluate([(1, 7)])[0].measures["sum"] == 8.0
    with pytest.raises(ClusterError, match="running on this cluster already"):
        Started(tmp_path, workers=1)
    started.pool.stop()
    with pytest.raises(ClusterError, match=r"is gone|was stopped"):
        client.evaluate([(2, 7)])
    with pytest.raises(ClusterError, match="There is no evaluator pool"):
        PoolClient(started.pool.name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        (threads_of_torch, NetworkError, "^1 threads$"),
        (bad_task, NetworkError, "^The network returns NaN; check its weights.$"),
        (crashing_task, PruneTuneError, "RuntimeError: shapes do not match$"),
        (dying_task, ClusterError, "died before they could evaluate"),
    ],
)
def test_a_task_that_cannot_be_built_is_the_callers_error(
    factory: object, error: type[Exception], message: str, tmp_path: Path
) -> None:
    record = EvaluationRecord(tmp_path, KEY)
    with pytest.raises(error, match=message):
        EvaluatorPool.start("unbuildable", factory, record, workers=2)  # type: ignore[arg-type]
    assert len(record) == 0


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"cpus": 64.0}, "asks for 64 CPU, but the largest node of the cluster has 2 CPU"),
        ({"gpus": 1.0}, "1 GPU, but"),
        ({"workers": 3}, "room for 2 evaluators of 1 CPU, not for 3"),
    ],
)
def test_resources_that_are_not_there_are_refused_at_once(
    resources: dict[str, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match=message):
        EvaluatorPool.start("greedy", bad_task, EvaluationRecord(tmp_path, KEY), **resources)


@pytest.mark.slow
def test_an_occupied_cluster_is_said_not_waited_for(two_workers: Started, tmp_path: Path) -> None:
    @ray.remote(num_cpus=1)
    class Occupier:
        def here(self) -> bool:
            return True

    occupier = Occupier.remote()
    ray.get(occupier.here.remote())
    try:
        with pytest.raises(ClusterError, match="other work occupies the cluster"):
            EvaluatorPool.start(
                "late",
                bad_task,
                EvaluationRecord(tmp_path, KEY),
                workers=1,
                patience=1.0,
            )
    finally:
        ray.kill(occupier)


class FullDisk:
    """A store whose disk is full as long as a file says so."""

    def __init__(self, switch: Path) -> None:
        self.switch = switch
        self.kept: dict[tuple[int, ...], Evaluation] = {}

    def get(self, widths: tuple[int, ...]) -> Evaluation | None:
        """Look up."""
        return self.kept.get(widths)

    def append(self, evaluations: list[Evaluation]) -> None:
        """Keep, if there is room."""
        if self.switch.exists():
            raise OSError(28, "No space left on device")
        self.kept.update({evaluation.candidate: evaluation for evaluation in evaluations})


@pytest.mark.slow
def test_nothing_is_answered_that_is_not_recorded(tmp_path: Path) -> None:
    switch, log = tmp_path / "full", tmp_path / "log"
    switch.touch()
    factory = functools.partial(LoggingEvaluator, log)
    with EvaluatorPool.start("full-disk", factory, FullDisk(switch), workers=1) as pool:
        with pytest.raises(RunFolderError, match="No space left on device"):
            pool.evaluate([(1, 8)])
        switch.unlink()
        assert pool.evaluate([(1, 8)])[0].measures["sum"] == 9.0
        assert pool.stats().unique == 1
    assert log.read_text().count(" 1 8\n") == 1, "not evaluated again when there was room"
