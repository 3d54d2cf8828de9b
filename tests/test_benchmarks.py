"""Every benchmark runs to its end on the embedded task; its figures are not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from prunetune.models import PruningTask

_FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@cache
def smoke_run(script: str, cache_folder: Path) -> str:
    finished = subprocess.run(
        [sys.executable, _FOLDER / f"{script}.py", "--smoke"],
        env={**os.environ, "PRUNETUNE_CACHE": str(cache_folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize(
    ("script", "table"),
    [
        ("agents", "mean cost there / limit"),
        ("allocation", "widths from"),
        ("candidate_throughput", "x torch-pruning"),
        ("constrained_mdp", "cost/limit"),
        ("entropy_cost", "they add"),
        ("image_sampling", "variance: simple / ours"),
        ("latency_table", "mean error %"),
        ("kill_and_resume", "same structure"),
        ("pool_scaling", "busy at most"),
        ("precision_and_memory", "Resident MiB"),
        ("record_scaling", "append ms"),
        ("rank_fidelity", "test after fine-tuning"),
        ("repair_accuracy", "recalibration"),
        ("reward_ranks", "before fine-tuning"),
    ],
)
def test_smoke_run_prints_a_table_and_a_line_of_json(
    script: str, table: str, digits_task: PruningTask, cache_folder: Path
) -> None:
    printed = smoke_run(script, cache_folder)
    result = json.loads(printed.splitlines()[-1])
    assert table in printed
    assert result["benchmark"] == script
    assert result["environment"]["threads"] == 1


def test_torch_pruning_and_masking_compute_the_same_network(
    digits_task: PruningTask, cache_folder: Path
) -> None:
    printed = smoke_run("candidate_throughput", cache_folder)
    rows = json.loads(printed.splitlines()[-1])["rows"]
    accuracy = {row["contender"]: row["accuracy"] for row in rows}
    assert accuracy["amc"] == pytest.approx(accuracy["torch-pruning"], abs=0.01)
    assert accuracy["ours+quick"] == accuracy["ours+quick (warm)"]
    estimated = {row["contender"] for row in rows if row["standard_error"] is not None}
    assert estimated == {"ours+quick, sampled"}


def test_repairs_help_in_the_order_that_they_promise(
    digits_task: PruningTask, cache_folder: Path
) -> None:
    printed = smoke_run("repair_accuracy", cache_folder)
    rows = json.loads(printed.splitlines()[-1])["rows"]
    accuracy = {row["repair"]: row["accuracy"] for row in rows if row["criterion"] == "l1"}
    assert accuracy["none"] < accuracy["recalibration"] < accuracy["quick"]
    assert accuracy["full"] >= accuracy["quick"]


@pytest.mark.ray
def test_nothing_is_lost_where_a_driver_and_an_evaluator_are_killed(
    digits_task: PruningTask, cache_folder: Path
) -> None:
    result = json.loads(smoke_run("kill_and_resume", cache_folder).splitlines()[-1])
    assert result["kills"] == {"driver": 1, "evaluator": 1}
    assert result["nothing_lost"]
    assert sum(row["resumes"] for row in result["rows"]) == 1
