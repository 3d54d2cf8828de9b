"""Processes of a run end with its driver."""

from __future__ import annotations

import base64
import dataclasses
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prunetune.cluster.lifeline import Lifeline
from prunetune.search.run.record import read_record

from ..processes import Command
from ..small_run import small_run_values

pytestmark = pytest.mark.skipif(not Path("/proc/self/ns").is_dir(), reason="needs /proc")

_DEPENDS = """
import base64, pickle, time
pickle.loads(base64.b64decode("{life}")).depend()
print("depends", flush=True)
time.sleep(600)
"""


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that others depend on."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_life_is_cut_by_death_alone(other: subprocess.Popen[bytes]) -> None:
    life = pickle.loads(pickle.dumps(Lifeline.of(other.pid)))
    far = dataclasses.replace(life, machine="another one")
    assert not life.is_cut and not Lifeline.of_this_process().is_cut
    # The same number, but another process.
    assert dataclasses.replace(life, started="1").is_cut
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert life.is_cut
    # What cannot be known is not acted upon.
    assert not far.is_cut and not dataclasses.replace(life, machine="").is_cut


def test_who_depends_on_a_life_ends_with_it(other: subprocess.Popen[bytes]) -> None:
    life = base64.b64encode(pickle.dumps(Lifeline.of(other.pid))).decode()
    code = _DEPENDS.format(life=life)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as depending:
        assert depending.stdout is not None
        assert depending.stdout.readline() == b"depends\n"
        assert depending.poll() is None
        other.kill()
        assert depending.wait(60) == 1


# Tune wraps a trainable that has parameters.
_KINDS = {
    "EvaluatorWorker": "evaluator",
    "Coordinator": "coordinator",
    "SearchTrial": "trial",
    "_Inner": "trial",
}


def _working_for(driver: int) -> dict[str, Lifeline]:
    """Processes of ours that descend from a driver, by what they are."""
    parents, titles = {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int(_fields(process)[1])
            titles[int(process.name)] = (process / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, IndexError):
            continue
    found = {}
    for pid, title in titles.items():
        ancestor = pid
        while ancestor not in (0, 1, driver):
            ancestor = parents.get(ancestor, 0)
        for name, kind in _KINDS.items():
            if ancestor == driver and f"ray::{name}" in title:
                found[f"{kind} {pid}"] = Lifeline.of(pid)
    return found


def _fields(process: Path) -> list[str]:
    return (process / "stat").read_text().rpartition(")")[2].split()


@pytest.mark.slow
def test_nothing_evaluates_for_a_driver_that_was_killed(tmp_path: Path, cache_folder: Path) -> None:
    spec, run = tmp_path / "spec.yaml", tmp_path / "run"
    spec.write_text(yaml.safe_dump(small_run_values(tmp_path, evaluations=100_000)))
    with Command("search", spec) as command:
        recorded = run / "evaluations"
        command.wait_until(lambda: recorded.is_dir() and read_record(recorded).num_rows > 8, 240)
        working = _working_for(command.pid)
        command.send(signal.SIGKILL)
        command.end(10)
        command.wait_for_others(lambda: all(life.is_cut for life in working.values()), 60)
    kinds = {name.split()[0] for name in working}
    assert kinds == set(_KINDS.values())
