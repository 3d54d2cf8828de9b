"""Kill everything that a comparison consists of, at random, resume it, and see what was lost.

Comparisons on the embedded digits run on a cluster of two nodes on this machine. At random moments
one of these gets SIGKILL: the driver, an evaluator, the process of a trial (policy and all), the
pool's coordinator, a raylet, a whole worker node (all its processes), the whole head node (and with
it the cluster). What was killed of the cluster is started again; a driver that died, or ended with
an error, is resumed. Then the next kill. When a comparison has finished in spite of it:

* every evaluation that was ever seen in its record is still there (the record is read before every
  kill and several times a second in between);
* no candidate was evaluated again after it had been seen in the record (every evaluation leaves a
  trace outside of the record, with its time);
* every trial has asked for its number of candidates;
* the summary has the structure of that of a comparison that nobody disturbed, and beyond that the
  histories of its trials are compared candidate by candidate.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from _common import SMOKE_NETWORK, parser, print_result, print_table
from _ray_nodes import Nodes
from prunetune.search.run.history import TrialHistory
from prunetune.search.run.record import read_record

_LOOK_SECONDS = 0.3
_KINDS = {
    "evaluator": "ray::EvaluatorWorker",
    # Tune renames a trainable that it gives parameters to, and Ray shows both names.
    "trial": ("ray::SearchTrial", "ray::_Inner"),
    "coordinator": "ray::Coordinator",
}
# How often each is killed in a round; the heads last, because nothing goes on without them.
_ROUND = (
    *("driver",) * 3,
    *("evaluator",) * 5,
    *("trial",) * 7,
    *("coordinator",) * 2,
    "raylet",
    *("worker node",) * 2,
    "head node",
)


@dataclass
class Comparison:
    """One comparison and what was seen of it.

    Attributes:
        folder: Of the spec, the run and the log.
        seen: Fingerprints that were in the record, with the time when they were first seen there.
        resumes: How often it was resumed.
        failures: What it said when it ended with an error.
    """

    folder: Path
    seen: dict[int, float] = field(default_factory=dict)
    resumes: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    def look(self) -> None:
        """Read the record."""
        if (self.run / "evaluations").is_dir():
            table = read_record(self.run / "evaluations")
            if "measures.fingerprint" in table.column_names:
                now = time.time()
                for value in table.column("measures.fingerprint").drop_null().to_pylist():
                    self.seen.setdefault(int(value), now)

    def begun(self) -> list[tuple[float, int]]:
        """Time and fingerprint of every evaluation that was begun, the dense network's left out."""
        summary = json.loads((self.run / "summary.json").read_text())
        dense = int(summary["dense"]["measures"]["fingerprint"])
        lines = [line.split() for line in (self.folder / "log").read_text().splitlines()]
        traced = [(float(at), int(value)) for at, value, _ in lines]
        return [(at, value) for at, value in traced if value != dense]

    def histories(self) -> dict[str, list[tuple[int, ...]]]:
        """What every trial asked for."""
        return {
            folder.name: [candidate.candidate for candidate in TrialHistory(folder).load()]
            for folder in sorted((self.run / "histories").iterdir())
        }

    def summary(self) -> dict[str, Any]:
        """Its summary."""
        summary: dict[str, Any] = json.loads((self.run / "summary.json").read_text())
        return summary


def write_spec(
    folder: Path, evaluations: int, seeds: int, seconds: float, seed: int, learner: bool = True
) -> Comparison:
    """A comparison of its own folder, whose evaluations leave traces there."""
    learning = {"name": "ppo-lagrangian", "parameters": {"candidates": 16}}
    agents = [{"name": "random", "parameters": {"candidates": 16}}]
    folder.mkdir(parents=True)
    (folder / "log").touch()
    measure = f"{Path(__file__).with_name('fingerprint.py')}:Fingerprint"
    parameters = {"log": str(folder / "log"), "seconds": seconds}
    spec = {
        "task": {"model": SMOKE_NETWORK},
        "budgets": {"flops": 0.5},
        "evaluations": evaluations,
        "finetune": {"epochs": 1},
        "finalists": 1,
        "measures": ["accuracy", {"name": measure, "parameters": parameters}],
        "compare": {
            "rewards": ["accuracy"],
            "agents": [learning, *agents] if learner else agents,
            "seeds": seeds,
            "concurrent": 2,
        },
        "seed": seed,
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    return Comparison(folder)


def start_driver(nodes: Nodes, comparison: Comparison) -> subprocess.Popen[bytes]:
    """Begin a comparison, or resume it."""
    words = ["compare", str(comparison.folder / "spec.yaml"), "--output", str(comparison.run)]
    if (comparison.run / "prunetune-run.json").exists():
        words = ["resume", str(comparison.run)]
        comparison.resumes += 1
    with open(comparison.folder / "output", "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "prunetune", *words],
            env={**nodes.environment(), "RAY_ADDRESS": nodes.address},
            stdout=output,
            stderr=output,
        )


class Killer:
    """Kills by plan, and starts again what the cluster needs."""

    def __init__(self, nodes: Nodes, kinds: list[str], pause: tuple[float, float], seed: int):
        self.nodes = nodes
        self.left = kinds
        self.done: Counter[str] = Counter()
        self._pause = pause
        self._random = random.Random(seed)
        self._next = 0.0
        self.plan_next()

    def plan_next(self) -> None:
        """Choose the moment of the next kill."""
        self._next = time.monotonic() + self._random.uniform(*self._pause)

    def act(self, driver: subprocess.Popen[bytes]) -> None:
        """Kill the next one if it is time; what is not there yet is waited for."""
        if not self.left or time.monotonic() < self._next:
            return
        kind = self.left[0]
        if not self._kill(kind, driver):
            return
        self.done[kind] += 1
        self.left.pop(0)
        self.plan_next()
        print(f"{time.strftime('%X')}: {kind} killed, {len(self.left)} to go", file=sys.stderr)

    def _kill(self, kind: str, driver: subprocess.Popen[bytes]) -> bool:
        if kind == "head node":
            self.nodes.kill_head()
            self.nodes.start_head(cpus=1)
            self.nodes.add_worker(cpus=1)
            return True
        if kind == "worker node":
            self.nodes.kill_worker(self.nodes.workers[0])
            self.nodes.add_worker(cpus=1)
            return True
        if kind == "raylet":
            (node,) = self.nodes.workers
            for pid in self.nodes.raylets(node):
                os.kill(pid, signal.SIGKILL)
            node.wait(60)
            self.nodes.kill_worker(node)
            self.nodes.add_worker(cpus=1)
            return True
        pids = [driver.pid] if kind == "driver" else self.nodes.pids(_KINDS[kind])
        if not pids:
            return False
        os.kill(self._random.choice(pids), signal.SIGKILL)
        return True


def carry_through(
    nodes: Nodes, comparison: Comparison, killer: Killer | None, limit: float
) -> None:
    """Run a comparison to its end, whatever happens to it."""
    end = time.monotonic() + limit
    driver = start_driver(nodes, comparison)
    while True:
        if time.monotonic() > end:
            driver.kill()
            raise RuntimeError(f"the comparison in {comparison.folder} took too long")
        time.sleep(_LOOK_SECONDS)
        comparison.look()
        code = driver.poll()
        if code == 0:
            return
        if code is not None:
            if code != -signal.SIGKILL:
                last = (comparison.folder / "output").read_text().strip().splitlines()[-1]
                comparison.failures.append(last)
            driver = start_driver(nodes, comparison)
        elif killer is not None and comparison.seen:
            killer.act(driver)


def structure(value: Any, path: str = "") -> set[str]:
    """Keys and kinds of a summary as paths, without its numbers."""
    if isinstance(value, dict):
        return set().union(*(structure(inner, f"{path}.{key}") for key, inner in value.items()))
    if isinstance(value, list):
        return set().union(*(structure(inner, f"{path}[{n}]") for n, inner in enumerate(value)))
    return {f"{path}: {'number' if isinstance(value, int | float) else type(value).__name__}"}


def judge(comparison: Comparison, undisturbed: Comparison, evaluations: int) -> dict[str, Any]:
    """What became of a comparison that was killed and resumed."""
    table = read_record(comparison.run / "evaluations")
    kept = {int(value) for value in table["measures.fingerprint"].drop_null().to_pylist()}
    begun = comparison.begun()
    again = [value for at, value in begun if at > comparison.seen.get(value, float("inf"))]
    histories, summary = comparison.histories(), comparison.summary()
    usual = undisturbed.summary()
    # Where it ran, and whether an attempt before the last broke off, may differ.
    left_out = {"environment": 0, "error": 0}
    different = structure({**summary, **left_out}) ^ structure({**usual, **left_out})
    same = [histories[name] == asked for name, asked in undisturbed.histories().items()]
    for path in sorted(different):
        print(f"  only in one of the two summaries: {path}", file=sys.stderr, flush=True)
    # Random agents propose the same whatever happens; learners, if all randomness is restored.
    return {
        "resumes": comparison.resumes,
        "ended with an error": len(comparison.failures),
        "recorded": table.num_rows,
        "lost": len(set(comparison.seen) - kept),
        "evaluated again": len(again),
        "begun twice": len(begun) - len({value for _, value in begun}),
        "failed": summary["evaluations"]["failed"],
        "short trials": sum(len(asked) != evaluations for asked in histories.values()),
        "same structure": not different,
        "same histories": f"{sum(same)} of {len(same)}",
    }


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    options.add_argument("--kills", type=int, default=55, help="SIGKILLs in all")
    options.add_argument("--evaluations", type=int, default=96, help="of each search")
    options.add_argument("--seconds", type=float, default=0.1, help="of each evaluation, at least")
    given = options.parse_args()
    kills, evaluations, seconds, seeds = given.kills, given.evaluations, given.seconds, 2
    pause = (0.5, 4.0)
    draw = random.Random(given.seed)
    rounds = [draw.sample(_ROUND, len(_ROUND)) for _ in range(1 + kills // len(_ROUND))]
    kinds = [kind for each in rounds for kind in each][:kills]
    if given.smoke:
        kinds, evaluations, seconds, seeds, pause = ["evaluator", "driver"], 16, 0.1, 1, (0.0, 0.1)
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        nodes = Nodes()
        try:
            nodes.start_head(cpus=1)
            nodes.add_worker(cpus=1)
            size = (evaluations, seeds, seconds, given.seed, not given.smoke)
            undisturbed = write_spec(Path(folder, "0"), *size)
            carry_through(nodes, undisturbed, None, limit=1800)
            quiet, trials = time.monotonic() - began, len(undisturbed.histories())
            killer = Killer(nodes, kinds, pause, given.seed)
            while killer.left:
                number = str(len(rows) + 1)
                disturbed = write_spec(Path(folder, number), *size)
                before, at = sum(killer.done.values()), time.monotonic()
                carry_through(nodes, disturbed, killer, limit=3600)
                row = judge(disturbed, undisturbed, evaluations)
                killed = sum(killer.done.values()) - before
                rows.append({"kills": killed, **row, "seconds": time.monotonic() - at})
                print(f"comparison {number}: {rows[-1]}", file=sys.stderr, flush=True)
                for failure in disturbed.failures:
                    print(f"  {failure}", file=sys.stderr, flush=True)
        finally:
            nodes.stop()
    print_table("What was killed", ["victim", "SIGKILLs"], sorted(killer.done.items()))
    columns = list(rows[0])
    print_table("What became of the comparisons", columns, [list(row.values()) for row in rows])
    whole = all(
        row["lost"] == row["evaluated again"] == row["short trials"] == 0 and row["same structure"]
        for row in rows
    )
    print_result(
        "kill_and_resume",
        kills=dict(killer.done),
        evaluations=evaluations,
        trials=trials,
        undisturbed_seconds=quiet,
        rows=rows,
        nothing_lost=whole,
    )


if __name__ == "__main__":
    main()
