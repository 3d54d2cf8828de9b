"""How long a search takes to begin, and its default agent to think, here and in an older checkout.

    python benchmarks/startup.py --against ../older-checkout --repeats 5

Every run is ``python -m prunetune search`` on the embedded digits, whose dense network was trained
and cached before, with one evaluator. Two figures come from the files that it leaves, which are the
same in all versions:

* to the first evaluation: seconds from the command to the first file in ``evaluations/``;
* outside of evaluations: seconds of an iteration of the default agent (``time_this_iter_s`` in
  Tune's own log) less those that its evaluator was busy with the iteration's new candidates. The
  first iteration, which builds the agent, is left out.

Checkouts take turns, so that whatever else the machine does meets all of them alike. A checkout is
the folder of the package; give the same one twice to see the noise.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from _common import SMOKE_NETWORK, parser, print_result, print_table

_HERE = Path(__file__).resolve().parents[1]
_LOOK_SECONDS = 0.01
_PATIENCE_SECONDS = 900
_CANDIDATES = 16


@dataclass
class Checkout:
    """One version of the package, and what was measured of it.

    Attributes:
        name: What the table calls it.
        folder: The package.
        work: A folder of its own: where it is imported from, its cache, and its runs.
        first: Seconds to the first evaluation, one a run.
        iterations: Seconds outside of evaluations, one an iteration of all runs.
    """

    name: str
    folder: Path
    work: Path
    first: list[float] = field(default_factory=list)
    iterations: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.work / "path").mkdir(parents=True)
        (self.work / "path" / "prunetune").symlink_to(self.folder, target_is_directory=True)

    def search(self, evaluations: int, seed: int) -> tuple[Path, float]:
        """Run a search to its end.

        Args:
            evaluations: Candidates that it asks for.
            seed: Of the search.

        Returns:
            The run's folder, and the seconds from the command to its first evaluation.

        Raises:
            RuntimeError: If it fails; with the last of what it printed.
        """
        run = self.work / f"run-{time.monotonic_ns()}"
        spec = self.work / "spec.yaml"
        agent = {"name": "ppo-lagrangian", "parameters": {"candidates": _CANDIDATES}}
        values: dict[str, Any] = {
            "task": {"model": SMOKE_NETWORK},
            "budgets": {"flops": 0.5},
            "agent": agent,
            "evaluations": evaluations,
            "seed": seed,
            "finalists": 1,
            "finetune": {"epochs": 0},
            "cluster": {"evaluators": 1},
        }
        spec.write_text(yaml.safe_dump(values))
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.work / "path"),
            "PRUNETUNE_CACHE": str(self.work / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "prunetune", "search", spec, "--output", run]
        with (self.work / "log").open("w+") as log:
            began = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=self.work, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                while process.poll() is None and not _has_files(run / "evaluations"):
                    time.sleep(_LOOK_SECONDS)
                first = time.perf_counter() - began
                failed = process.wait(_PATIENCE_SECONDS) != 0
            finally:
                process.kill()
                process.wait()
        if failed:
            said = (self.work / "log").read_text()[-1000:]
            raise RuntimeError(f"The search with {self.folder} failed: {said}")
        return run, first

    def measure(self, evaluations: int, seed: int) -> None:
        """Run a search, and keep its figures."""
        run, first = self.search(evaluations, seed)
        self.first.append(first)
        self.iterations.extend(outside_of_evaluations(run))


def outside_of_evaluations(run: Path) -> Iterator[float]:
    """Seconds of each iteration but the first in which the only evaluator had nothing to do.

    Args:
        run: The folder of a finished search with one evaluator.
    """
    busy: dict[tuple[int, ...], float] = {}
    for path in (run / "evaluations").glob("*.parquet"):
        table = pq.read_table(path)
        busy.update(zip(_candidates(table), table["seconds"].to_pylist(), strict=True))
    (log,) = (run / "tune").rglob("result.json")
    reported = [json.loads(line) for line in log.read_text().splitlines()]
    seen: set[tuple[int, ...]] = set()
    for index, path in enumerate(sorted((run / "histories").rglob("*.parquet"))):
        new = set(_candidates(pq.read_table(path))) - seen
        seen |= new
        if index > 0:
            yield reported[index]["time_this_iter_s"] - sum(busy[each] for each in new)


def _candidates(table: Any) -> list[tuple[int, ...]]:
    # Until 0.2 their column was named widths.
    name = "candidate" if "candidate" in table.column_names else "widths"
    return [tuple(each) for each in table[name].to_pylist()]


def _has_files(folder: Path) -> bool:
    try:
        return any(not entry.name.startswith(".") for entry in os.scandir(folder))
    except FileNotFoundError:
        return False


def _row(checkout: Checkout) -> dict[str, Any]:
    found: dict[str, Any] = {"checkout": checkout.name}
    for name, values in (("first", checkout.first), ("outside", checkout.iterations)):
        found[name] = statistics.median(values)
        found[f"{name}_from"], found[f"{name}_to"] = min(values), max(values)
    return {**found, "runs": len(checkout.first), "iterations": len(checkout.iterations)}


def main() -> None:
    """Run it."""
    options = parser(__doc__)
    options.add_argument("--against", type=Path, help="the folder of an older package")
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--evaluations", type=int, default=160)
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.repeats, chosen.evaluations = 1, 2 * _CANDIDATES
    folders = {"this": _HERE}
    if chosen.against is not None:
        folders["older"] = chosen.against.expanduser().resolve()
    with tempfile.TemporaryDirectory() as work:
        checkouts = [Checkout(name, folder, Path(work) / name) for name, folder in folders.items()]
        for checkout in checkouts:
            # Trains and caches the dense network.
            checkout.search(_CANDIDATES, chosen.seed)
        for repeat in range(chosen.repeats):
            for checkout in checkouts:
                checkout.measure(chosen.evaluations, chosen.seed + repeat)
        rows = [_row(checkout) for checkout in checkouts]
    print_table(
        f"Seconds, median of {chosen.repeats} runs (from least to most)",
        ["checkout", "to the first evaluation", "an iteration outside of evaluations"],
        [
            [
                row["checkout"],
                f"{row['first']:.1f} ({row['first_from']:.1f} to {row['first_to']:.1f})",
                f"{row['outside']:.3f} ({row['outside_from']:.3f} to {row['outside_to']:.3f})",
            ]
            for row in rows
        ],
    )
    print_result("startup", rows=rows, candidates=_CANDIDATES, evaluations=chosen.evaluations)


if __name__ == "__main__":
    main()
