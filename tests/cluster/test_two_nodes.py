"""A search on a real cluster of two nodes, one of which dies in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from prunetune.search.history import TrialHistory
from prunetune.search.record import read_record

from .ray_nodes import Head, started_node

pytestmark = pytest.mark.ray

# Leaves a trace of every evaluation: on which node, by which process. With it each takes a while.
_MEASURE = """
    import os, time
    import ray
    from prunetune.rewards.measure import Measure

    class Where(Measure):
        name = "where"

        def fit(self, network, batches):
            pass

        def reset(self):
            pass

        def update(self, batch):
            pass

        def compute(self):
            time.sleep(0.1)
            if ray.is_initialized():
                node = ray.get_runtime_context().get_node_id()
                with open({log!r}, "a") as file:
                    file.write(f"{{node}} {{os.getpid()}}\\n")
            return {{"where": 0.0}}
"""


def _wait_until(condition: Callable[[], bool], seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)


def test_a_search_uses_both_nodes_and_outlives_one_of_them(
    ray_head: Head, digits_task: object, tmp_path: Path
) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    log.touch()
    (tmp_path / "own.py").write_text(textwrap.dedent(_MEASURE.format(log=str(log))))
    spec = {
        "task": {"model": "digits-net"},
        "budgets": {"flops": 0.5},
        "agent": {"name": "random", "parameters": {"candidates": 48}},
        "evaluations": 96,
        "measures": ["accuracy", "own.py:Where"],
        "finetune": {"epochs": 0},
        "finalists": 1,
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))

    def nodes() -> Counter[str]:
        return Counter(line.split()[0] for line in log.read_text().splitlines())

    with started_node(ray_head, cpus=1) as node:
        search = subprocess.Popen(
            [sys.executable, "-m", "prunetune", "search", "spec.yaml", "--output", "run"],
            cwd=tmp_path,
            env={**ray_head.environment(), **_inherited(), "RAY_ADDRESS": ray_head.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            _wait_until(lambda: search.poll() is not None or len(nodes()) == 2)
            assert len(nodes()) == 2, "evaluations run on both nodes"
            _kill(node)
            output, _ = search.communicate(timeout=300)
        finally:
            search.kill()
            search.wait()
    assert search.returncode == 0, output
    (survivor,) = {line.split()[0] for line in log.read_text().splitlines()[-5:]}
    assert nodes()[survivor] > 48, "the rest runs on the node that is left"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert (summary["evaluations"]["asked"], summary["evaluations"]["failed"]) == (96, 0)
    (history,) = (run / "histories").iterdir()
    asked = [candidate.widths for candidate in TrialHistory(history).load()]
    recorded = [tuple(row) for row in read_record(run / "evaluations")["widths"].to_pylist()]
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
