"""A search on a real cluster that gains a node, and loses it again, in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from prunetune.search.run.history import TrialHistory
from prunetune.search.run.record import read_record

from .ray_nodes import Head, started_node

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Leaves a trace of every evaluation: on which node. The first node waits for the second one.
_MEASURE = """
    import os, time
    from pathlib import Path
    import ray
    from prunetune.rewards.measures.measure import Measure

    class Where(Measure):
        name = "where"

        def fit(self, network, batches):
            pass

        def reset(self):
            pass

        def update(self, batch):
            pass

        def compute(self):
            if ray.is_initialized():
                log, node = Path({log!r}), ray.get_runtime_context().get_node_id()
                with open(log, "a") as file:
                    file.write(node + "\\n")
                first, *others = log.read_text().split()
                while node == first and len(others) > 20 and not Path({go!r}).exists():
                    time.sleep(0.05)
            return {{"where": 0.0}}
"""


def _wait_until(condition: Callable[[], bool], seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)


def test_a_search_uses_a_node_that_joins_and_outlives_it(
    ray_head: Head, digits_task: object, tmp_path: Path
) -> None:
    log, go, run = tmp_path / "log", tmp_path / "go", tmp_path / "run"
    log.touch()
    source = textwrap.dedent(_MEASURE).format(log=str(log), go=str(go))
    (tmp_path / "own.py").write_text(source)
    parameters = {"candidates": 48, "start": "uniform"}
    spec = {
        "task": {"model": "digits-net"},
        "budgets": {"flops": 0.5},
        "agent": {"name": "ppo-lagrangian", "parameters": parameters},
        "evaluations": 96,
        "measures": ["accuracy", "own.py:Where"],
        "finetune": {"epochs": 0},
        "finalists": 1,
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    search = subprocess.Popen(
        [sys.executable, "-m", "prunetune", "search", "spec.yaml", "--output", "run"],
        cwd=tmp_path,
        env={**ray_head.environment(), **_inherited(), "RAY_ADDRESS": ray_head.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait_until(lambda: search.poll() is not None or bool(log.read_text()))
        with started_node(ray_head, cpus=1) as node:
            _wait_until(lambda: search.poll() is not None or len(set(log.read_text().split())) == 2)
            _kill(node)
            go.touch()
            output, _ = search.communicate(timeout=300)
    finally:
        search.kill()
        search.wait()
    assert search.returncode == 0, output
    evaluated = log.read_text().split()
    assert len(set(evaluated)) == 2, "evaluations ran on both nodes"
    assert set(evaluated[-5:]) == {evaluated[0]}, "the rest ran on the node that is left"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert (summary["evaluations"]["asked"], summary["evaluations"]["failed"]) == (96, 0)
    (history,) = (run / "histories").iterdir()
    asked = [candidate.candidate for candidate in TrialHistory(history).load()]
    recorded = [tuple(row) for row in read_record(run / "evaluations")["candidate"].to_pylist()]
    assert len(asked) == 96 and sorted(set(asked)) == sorted(recorded)


def _kill(node: subprocess.Popen[bytes]) -> None:
    """End a node as a power cut does: all of its processes at once."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
    doomed = [node.pid]
    for pid in doomed:
        doomed += children.get(pid, [])
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.wait()


def _inherited() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.startswith("PRUNETUNE_")}
