"""How much of several evaluators is used: real evaluations on two, simulated ones on many.

    python benchmarks/pool_scaling.py --rounds 5

**Real.** New candidates of ResNet-56 near half its FLOPs are evaluated by a pool of one and by a
pool of two evaluators, in turn. Beside them, as a control without Ray and without a pool, the same
evaluator runs in one and in two plain processes. Where two plain processes are not twice as fast
as one, the machine is the limit (cores that share their units and memory), not the pool; what the
pool itself costs is the ratio of the two speed-ups.

**Simulated.** Evaluations that only wait for 0, 10 or 100 ms, on 1 to 64 evaluators, each a process
of its own, with the real pool and the real record on disk. Busy is the share of the evaluators'
time that is spent in evaluations. All processes share this machine's cores. From the coordinator's
processor time per candidate, where it has as much to do as it can, follows how many candidates one
coordinator can hand out per second, and how busy it could keep 1,000 evaluators on machines of
their own. (With less to do it spends more on each: one write to disk then serves fewer of them.)
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from _common import SMOKE_NETWORK, parser, print_result, print_table, widths_at
from _ray_nodes import descendants, process_title
from prunetune.cluster import ClusterSpec, EvaluatorPool, connect
from prunetune.models import Candidate, Structure
from prunetune.rewards.evaluation.evaluation import Evaluation
from prunetune.search.engine.preparing import PreparedFactory, prepare
from prunetune.search.run.record import EvaluationRecord, RecordKey
from prunetune.search.spec.reading import read_spec

_KEY = RecordKey("simulated", "1", "fp32", "none")
_TICK = os.sysconf("SC_CLK_TCK")
_SECONDS = 4.0
_MANY = 1000


class Waiting:
    """An evaluator that only waits; it needs nothing but a few MB.

    Args:
        seconds: How long an evaluation takes.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    @property
    def dense(self) -> Evaluation:
        """See `Evaluator`."""
        return Evaluation((1,))

    def evaluate(self, widths: Candidate) -> Evaluation:
        """See `Evaluator`."""
        # The first width says how long, so that one pool serves all durations.
        seconds = widths[0] / 1000 - 0.001
        if seconds > 0:
            time.sleep(seconds)
        measures = dict.fromkeys(("accuracy", "loss", "entropy"), 0.5)
        return Evaluation(widths, measures, {"flops": 0.5, "params": 0.5}, seconds)


@dataclass(frozen=True)
class _Waits:
    """Builds `Waiting`."""

    def __call__(self) -> Waiting:
        return Waiting(0.0)


def _process(factory: PreparedFactory, pipe: Connection) -> None:
    """A plain process: builds the evaluator, then evaluates whatever list it is sent."""
    import torch

    torch.set_num_threads(1)
    evaluator = factory()
    pipe.send(None)
    while (candidates := pipe.recv()) is not None:
        for widths in candidates:
            evaluator.evaluate(widths)
        pipe.send(None)


class Plain:
    """Evaluators in plain processes.

    Args:
        factory: Builds one.
        count: How many.
    """

    def __init__(self, factory: PreparedFactory, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_process, args=(factory, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def evaluate(self, candidates: Sequence[Candidate], count: int) -> None:
        """Deal candidates to the first ``count`` processes, and wait for them."""
        for index, pipe in enumerate(self._pipes[:count]):
            pipe.send(list(candidates[index::count]))
        for pipe in self._pipes[:count]:
            pipe.recv()

    def stop(self) -> None:
        """End them."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join()


def candidates_near_half(structure: Structure, rng: np.random.Generator) -> Any:
    """Endless new widths near half of the FLOPs."""
    while True:
        yield widths_at(structure, 0.5, rng.uniform(0.7, 1.3, len(structure.groups)))


def measure_real(options: Any) -> tuple[list[list[object]], dict[str, Any]]:
    """Candidates per second with one and two evaluators, in pools and in plain processes."""
    spec = real_spec(options)
    prepared = prepare(spec)
    structure = prepared.evaluator.groups.structure
    rng = np.random.default_rng(options.seed)
    fresh = candidates_near_half(structure, rng)
    rounds, each = (1, 4) if options.smoke else (options.rounds, options.candidates)
    seconds: dict[tuple[str, int], list[float]] = {}
    # The pool that is ending may still write to it.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pools = {}
        for workers in (1, 2):
            record = EvaluationRecord(Path(folder, str(workers)), prepared.record_key)
            # Both pools are there all the time, but only one is asked at a time.
            pools[workers] = EvaluatorPool.start(
                f"real-{workers}", prepared.factory, record, workers=workers, cpus=0.5
            )
            wait_for(pools[workers], workers)
        plain = Plain(prepared.factory, 2)
        # Caches of weights and plans are filled once.
        warm = list(itertools.islice(fresh, 4))
        contenders: dict[str, Callable[[list[Candidate], int], object]] = {
            "pool": lambda chosen, workers: pools[workers].evaluate(chosen),
            "plain processes": plain.evaluate,
        }
        for evaluate, workers in itertools.product(contenders.values(), (1, 2)):
            evaluate(warm, workers)
        for _ in range(rounds):
            for (name, evaluate), workers in itertools.product(contenders.items(), (1, 2)):
                chosen = list(itertools.islice(fresh, each * workers))
                began = time.perf_counter()
                evaluate(chosen, workers)
                took = (time.perf_counter() - began) / len(chosen)
                seconds.setdefault((name, workers), []).append(took)
        plain.stop()
        for pool in pools.values():
            pool.stop()
    rows: list[list[object]] = []
    speedups = {}
    for name in contenders:
        one, two = seconds[name, 1], seconds[name, 2]
        ratios = sorted(a / b for a, b in zip(one, two, strict=True))
        speedups[name] = statistics.median(ratios)
        per_second = [1 / statistics.median(one), 1 / statistics.median(two)]
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        rows.append([name, *per_second, speedups[name], spread])
    share = speedups["pool"] / speedups["plain processes"]
    found = {"network": spec.task.model, "speedups": speedups, "pool_against_plain": share}
    listed = {f"{name} {workers}": values for (name, workers), values in seconds.items()}
    return rows, {**found, "seconds_per_candidate": listed}


def real_spec(options: Any) -> Any:
    """The task of the real evaluations, with the measures that a search records by default."""
    if options.smoke:
        return read_spec({"task": {"model": SMOKE_NETWORK}, "budgets": {"flops": 0.5}})
    data = options.data
    task = {
        "model": "resnet56",
        "weights": str(data / "weights" / "cifar10_resnet56.safetensors"),
        "data": {"name": "parquet", "root": str(data / "cifar10")},
        "validation": 1000,
    }
    return read_spec({"task": task, "budgets": {"flops": 0.5}})


def measure_simulated(workers: int, durations: Sequence[float], most: int) -> list[dict[str, Any]]:
    """Throughput of one pool with evaluations of several durations."""
    found = []
    serial = itertools.count(1)
    # The pool that is ending may still write to it.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        record = EvaluationRecord(folder, _KEY)
        with EvaluatorPool.start(
            f"simulated-{workers}", _Waits(), record, workers=workers, cpus=1 / 64
        ) as pool:
            wait_for(pool, workers)
            (coordinator,) = coordinators()
            pool.evaluate([(1, next(serial)) for _ in range(8 * workers)])
            for duration in durations:
                count = most if not duration else int(_SECONDS * workers / duration)
                count = max(2 * workers, min(most, count))
                width = int(1000 * duration) + 1
                chosen = [(width, next(serial)) for _ in range(count)]
                before, began = processor_seconds(coordinator), time.perf_counter()
                pool.evaluate(chosen)
                took = time.perf_counter() - began
                spent = processor_seconds(coordinator) - before
                found.append(
                    {
                        "workers": workers,
                        "ms": 1000 * duration,
                        "candidates": count,
                        "per_second": count / took,
                        "ms_per_candidate": 1000 * took / count,
                        "coordinator_ms": 1000 * spent / count,
                        "busy": duration * count / (workers * took) if duration else None,
                    }
                )
    return found


def wait_for(pool: EvaluatorPool, workers: int) -> None:
    """Until all evaluators of a pool are ready."""
    while pool.stats().workers < workers:
        time.sleep(0.1)


def coordinators() -> list[int]:
    """Process ids of the coordinators that this process has started."""
    found = descendants(os.getpid())
    return [pid for pid in found if process_title(pid).startswith("ray::Coordinator")]


def processor_seconds(pid: int) -> float:
    """Of all threads of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5, help="of the real evaluations")
    options.add_argument("--candidates", type=int, default=16, help="per evaluator and round")
    options.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    options.add_argument("--only", choices=["real", "simulated"])
    given = options.parse_args()
    workers, durations, most = given.workers, (0.0, 0.01, 0.1), 4000
    if given.smoke:
        workers, durations, most = [2], (0.0, 0.01), 40
    connect(ClusterSpec())
    results: dict[str, Any] = {}
    if given.only != "simulated":
        columns = ["evaluators", "per second, 1", "per second, 2", "speed-up", "over rounds"]
        rows, results["real"] = measure_real(given)
        print_table(f"Real evaluations of {results['real']['network']}", columns, rows)
        share = results["real"]["pool_against_plain"]
        print(f"The pool's speed-up is {100 * share:.0f} % of that of plain processes.")
    if given.only != "real":
        simulated = [each for n in workers for each in measure_simulated(n, durations, most)]
        columns = ["evaluators", "ms each", "candidates", "per second", "ms per candidate"]
        rows = [list(each.values()) for each in simulated]
        print_table(
            "Simulated evaluations", [*columns, "coordinator ms per candidate", "busy"], rows
        )
        # Many evaluators keep it as busy as evaluations of no duration do.
        cost = [each["coordinator_ms"] for each in simulated if not each["ms"]][-1]
        extrapolated = [
            {"ms": ms, "busy": min(1.0, ms / (_MANY * cost)), "per_second": 1000 * _MANY / ms}
            for ms in (100, 300, 1000, 3000)
        ]
        print_table(
            f"{_MANY} evaluators, at {cost:.3f} ms of the coordinator's processor per candidate",
            ["ms each", "busy at most", "per second when all are busy"],
            [list(each.values()) for each in extrapolated],
        )
        results["simulated"] = simulated
        results["coordinator_ms"], results["extrapolated"] = cost, extrapolated
    print_result("pool_scaling", **results)


if __name__ == "__main__":
    main()
