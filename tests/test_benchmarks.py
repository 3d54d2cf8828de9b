"""Every benchmark runs to its end on the embedded task; its figures are not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from prunetune.models import PruningTask

_FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

pytestmark = pytest.mark.slow

SmokeRun = Callable[[str], str]


@pytest.fixture(scope="module")
def smoke_run(
    request: pytest.FixtureRequest, digits_task: PruningTask, cache_folder: Path
) -> Iterator[SmokeRun]:
    """What a script prints. All those that are asked for are started now, two at a time."""
    environment = {**os.environ, "PRUNETUNE_CACHE": str(cache_folder), "OMP_NUM_THREADS": "1"}

    pool = ThreadPoolExecutor(max_workers=2)

    @cache
    def start(script: str) -> Future[subprocess.CompletedProcess[str]]:
        command = [sys.executable, _FOLDER / f"{script}.py", "--smoke"]
        return pool.submit(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=False
        )

    def printed(script: str) -> str:
        finished = start(script).result()
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    for item in request.session.items:
        if item.path == request.path and isinstance(item, pytest.Function):
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            if "script" in parameters:
                start(parameters["script"])
    yield printed
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(
    ("script", "table"),
    [
        ("agents", "mean cost there / limit"),
        ("allocation", "widths from"),
        ("candidate_throughput", "x torch-pruning"),
        ("constrained_mdp", "cost/limit"),
        ("entropy_cost", "they add"),
        ("image_sampling", "variance: simple / ours"),
        ("injected_faults", "injected faults, 0 not caught"),
        ("latency_table", "mean error %"),
        ("kill_and_resume", "same structure"),
        ("pool_scaling", "busy at most"),
        ("precision_and_memory", "Resident MiB"),
        ("record_scaling", "append ms"),
        ("rank_fidelity", "test after fine-tuning"),
        ("repair_accuracy", "recalibration"),
        ("reward_ranks", "before fine-tuning"),
        ("startup", "an iteration outside of evaluations"),
    ],
)
def test_smoke_run_prints_a_table_and_a_line_of_json(
    smoke_run: SmokeRun, script: str, table: str
) -> None:
    printed = smoke_run(script)
    result = json.loads(printed.splitlines()[-1])
    assert table in printed
    assert result["benchmark"] == script
    assert result["environment"]["threads"] == 1


def test_torch_pruning_and_masking_compute_the_same_network(smoke_run: SmokeRun) -> None:
    printed = smoke_run("candidate_throughput")
    rows = json.loads(printed.splitlines()[-1])["rows"]
    accuracy = {row["contender"]: row["accuracy"] for row in rows}
    assert accuracy["amc"] == pytest.approx(accuracy["torch-pruning"], abs=0.01)
    assert accuracy["ours+quick"] == accuracy["ours+quick (warm)"]
    estimated = {row["contender"] for row in rows if row["standard_error"] is not None}
    assert estimated == {"ours+quick, sampled"}


def test_repairs_help_in_the_order_that_they_promise(smoke_run: SmokeRun) -> None:
    printed = smoke_run("repair_accuracy")
    rows = json.loads(printed.splitlines()[-1])["rows"]
    accuracy = {row["repair"]: row["accuracy"] for row in rows if row["criterion"] == "l1"}
    assert accuracy["none"] < accuracy["recalibration"] < accuracy["quick"]
    assert min(accuracy["full"], accuracy["block"]) >= accuracy["quick"]


@pytest.mark.ray
def test_nothing_is_lost_where_a_driver_and_an_evaluator_are_killed(smoke_run: SmokeRun) -> None:
    result = json.loads(smoke_run("kill_and_resume").splitlines()[-1])
    assert result["kills"] == {"driver": 1, "evaluator": 1}
    assert result["nothing_lost"]
    assert sum(row["resumes"] for row in result["rows"]) == 1
