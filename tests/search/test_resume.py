"""Resuming: after every kind of damage, for longer, and not at all where results would not fit."""

from __future__ import annotations

import os
import pickle
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prunetune.errors import RunFolderError, SpecError
from prunetune.rewards.evaluation.evaluation import Evaluation
from prunetune.search.engine.entry import resume_run
from prunetune.search.run.folder import RunFolder
from prunetune.search.run.history import Asked, TrialHistory
from prunetune.search.run.record import (
    CoordinatorRecord,
    EvaluationRecord,
    RecordKey,
    read_record,
)
from prunetune.search.run.summary import Summary, read_summary, write_summary

from ..small_run import REWARD, TRIAL, small_run_values
from .runs import Touches

pytestmark = pytest.mark.ray


@pytest.fixture
def run(finished: Summary, finished_copy: Path) -> Path:
    """A copy of the run, as if it had been interrupted before its end was noted."""
    stopped = finished.model_copy(update={"status": "interrupted", "best": ()})
    write_summary(RunFolder.open(finished_copy), stopped)
    (finished_copy / "histories" / TRIAL / "ended.json").unlink()
    return finished_copy


def _history(run: Path) -> list[Asked]:
    return TrialHistory(run / "histories" / TRIAL).load()


def _recorded(run: Path) -> list[tuple[int, ...]]:
    return [tuple(widths) for widths in read_record(run / "evaluations")["candidate"].to_pylist()]


def _checkpoints(run: Path) -> list[Path]:
    return sorted((run / "tune" / TRIAL).glob("checkpoint_*"))


def _edit_spec(run: Path, key: str, value: Any) -> None:
    spec = yaml.safe_load((run / "spec.yaml").read_text())
    *path, last = key.split(".")
    inner = spec
    for part in path:
        inner = inner[part]
    inner[last] = value
    (run / "spec.yaml").write_text(yaml.safe_dump(spec))


@pytest.mark.slow
def test_a_finished_run_goes_on_for_longer_where_it_ended(finished: Summary, run: Path) -> None:
    shutil.copy(finished.folder / "summary.json", run / "summary.json")
    before = _recorded(run)
    with pytest.raises(SpecError, match="may ask for 16 evaluations already"):
        resume_run(run, evaluations=8)
    summary = resume_run(run, evaluations=24)
    assert summary.status == "finished"
    (best,) = summary.best
    assert best.evaluations == summary.evaluations.asked == 24
    history = _history(run)
    assert history[:16] == _history(finished.folder)
    assert [candidate.evaluations_before for candidate in history] == list(range(24))
    after = _recorded(run)
    assert len(set(after)) == len(after) and set(before) < set(after)
    assert yaml.safe_load((run / "spec.yaml").read_text())["evaluations"] == 24
    assert resume_run(run) == summary, "there is nothing left to resume"


@pytest.mark.slow
def test_tunes_own_state_is_not_read_and_what_it_lost_is_made_good(
    finished: Summary, run: Path
) -> None:
    # It is a pickle, whatever it is called; a stranger's would run.
    trap = pickle.dumps(Touches(run / "unpickled"))
    for path in (run / "tune").iterdir():
        if path.is_file():
            path.write_bytes(trap)
    _edit_spec(run, "cluster.evaluators", 1)  # where it runs may change
    _edit_spec(run, "compare.concurrent", 1)
    newest = _checkpoints(run)[-1]
    for path in newest.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    histories = run / "histories" / TRIAL
    before = {path.name: path.stat().st_mtime_ns for path in histories.glob("*.parquet")}
    summary = resume_run(run)
    assert summary.status == "finished"
    assert summary.best == finished.best
    after = {path.name: path.stat().st_mtime_ns for path in histories.glob("*.parquet")}
    repeated = [name for name in sorted(before) if before[name] != after[name]]
    assert repeated == ["000003.parquet"], "it goes on from the checkpoint before the damaged one"
    assert _history(run) == _history(finished.folder)
    assert sorted(_recorded(run)) == sorted(_recorded(finished.folder)), "none is evaluated again"
    assert not (run / "unpickled").exists()


@pytest.mark.slow
def test_a_search_that_has_ended_is_not_begun_again(finished: Summary, run: Path) -> None:
    shutil.copy(finished.folder / "histories" / TRIAL / "ended.json", run / "histories" / TRIAL)
    summary = resume_run(run)
    assert summary.status == "finished" and summary.best == finished.best
    assert not list(run.glob("tune-retired-*"))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("budgets.flops", 0.4, "budgets.flops in its spec.yaml was 0.5 and is 0.4 now"),
        ("seed", 1, "seed in its spec.yaml was 0 and is 1 now"),
        ("recalibration", 64, "recalibration"),
        ("compare.seeds", 2, "compare.seeds"),
    ],
)
def test_a_changed_spec_is_refused_by_name(key: str, value: Any, said: str, run: Path) -> None:
    _edit_spec(run, key, value)
    with pytest.raises(RunFolderError, match=re.escape(said)):
        resume_run(run)


def test_a_reward_that_was_edited_since_is_refused(run: Path, finished: Summary) -> None:
    file = finished.folder.parent / "rewards.py"
    file.write_text(REWARD + "\n# edited\n")
    try:
        with pytest.raises(RunFolderError, match=r"the file rewards\.py has changed"):
            resume_run(run)
    finally:
        file.write_text(REWARD)


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("key", {"task": "other"}, "the network or its images have changed"),
        ("key", {"evaluator": "other"}, "evaluator or a measure has changed"),
        ("dense", {"accuracy": 0.9}, "the dense network's accuracy was 0.9 and is 0.98"),
    ],
)
def test_other_data_or_packages_are_refused(
    part: str, value: dict[str, Any], said: str, run: Path
) -> None:
    folder = RunFolder.open(run)
    identity = folder.read_json("identity.json")
    folder.write_json("identity.json", {**identity, part: {**identity[part], **value}})
    with pytest.raises(RunFolderError, match=said):
        resume_run(run)


@pytest.mark.slow
def test_lost_candidates_get_another_chance_and_failed_ones_do_not(
    finished: Summary, run: Path
) -> None:
    rows = read_record(run / "evaluations")
    key = RunFolder.open(run).read_json("identity.json")["key"]
    first, second = sorted(_recorded(run))[:2]
    shutil.rmtree(run / "evaluations")
    record = EvaluationRecord(run / "evaluations", RecordKey(**key))
    record.append([Evaluation(first, error="EvaluatorDied: 4 evaluator processes died")])
    record.append([Evaluation(second, error="ValueError: its own fault")])
    assert first in record, "not tried again by the process that gave it up"
    shutil.rmtree(run / "tune")
    summary = resume_run(run)
    assert summary.evaluations.failed == 1
    assert summary.evaluations.unique == rows.num_rows
    errors = {tuple(r["candidate"]): r["error"] for r in record.table().to_pylist()}
    assert (errors[first], errors[second]) == (None, "ValueError: its own fault")
    rewards = {candidate.candidate: candidate.reward for candidate in _history(run)}
    assert rewards[first] == {c.candidate: c.reward for c in _history(finished.folder)}[first]


_STOPPED = """
import sys
from prunetune.models.progress import SilentProgress
from prunetune.search.engine.entry import run_search
from prunetune.search.spec.reading import read_spec

class Telling(SilentProgress):
    def start(self, total, label):
        self.searching = label == "Searching"

    def advance(self, units=1):
        if self.searching and units:
            print("advanced", flush=True)

run_search(read_spec(eval(sys.argv[1])), Telling())
"""


@pytest.mark.slow
@pytest.mark.usefixtures("digits_task")
def test_a_terminated_run_says_so_and_two_processes_cannot_have_it(
    cache_folder: Path, tmp_path: Path
) -> None:
    values = small_run_values(tmp_path, evaluations=4000)
    process = subprocess.Popen(
        [sys.executable, "-c", _STOPPED, repr(values)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "advanced\n"
        with pytest.raises(RunFolderError, match=f"in use by process {process.pid} on"):
            resume_run(tmp_path / "run")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()
    summary = read_summary(RunFolder.open(tmp_path / "run"))
    assert summary is not None and summary.status == "interrupted"
    assert summary.evaluations.unique == len(_recorded(tmp_path / "run")) > 0


def test_a_coordinator_waits_until_the_one_before_is_dead(run: Path) -> None:
    key = RunFolder.open(run).read_json("identity.json")["key"]
    code = (
        "import pickle, sys\n"
        "record = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "print(len(record), flush=True)\n"
        "sys.stdin.read()\n"
    )
    content = pickle.dumps(CoordinatorRecord(run / "evaluations", RecordKey(**key))).hex()
    command = [sys.executable, "-c", code, content]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:
        outputs = {process.stdout.fileno(): process for process in (first, second)}
        (ready,), _, _ = select.select(list(outputs), [], [], 60)
        holder = outputs.pop(ready)
        assert holder.stdout.readline() == "16\n"
        assert select.select(list(outputs), [], [], 1.5)[0] == [], "the other one waits"
        os.kill(holder.pid, signal.SIGKILL)
        (waiting,) = outputs.values()
        assert waiting.stdout.readline() == "16\n"
        waiting.stdin.close()
