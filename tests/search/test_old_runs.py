"""A run that prunetune 0.1.0 wrote, when candidates were called widths, is still understood.

``old_run`` is one of its folders as it was, without networks, report and Tune's own state: a random
search of four candidates for the digits network.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from prunetune.errors import SpecError
from prunetune.search.engine.entry import resume_run
from prunetune.search.report import load_results, terminal_results
from prunetune.search.run.folder import FORMAT, MARKER, RunFolder
from prunetune.search.run.history import Asked, TrialHistory
from prunetune.search.run.record import EvaluationRecord, RecordKey, read_record
from prunetune.search.run.summary import Summary, read_summary, write_summary
from rich.console import Console

TRIAL = "accuracy_flops0.5_random_seed0"


@pytest.fixture
def old_run(tmp_path: Path) -> RunFolder:
    """A copy, which a test may write in."""
    return RunFolder.open(shutil.copytree(Path(__file__).with_name("old_run"), tmp_path / "run"))


def test_the_summary_names_the_candidate(old_run: RunFolder) -> None:
    written = json.loads(old_run.summary_path.read_text())["best"][0]
    best = _summary(old_run).best[0]
    assert best.candidate == tuple(written["widths"])
    assert best.finalists == tuple(map(tuple, written["finalists"]))
    assert best.candidate in best.finalists


def test_record_and_history_hold_the_same_candidates(old_run: RunFolder) -> None:
    history = _history(old_run)
    assert len(history) == 4
    rows = {tuple(row["candidate"]): row for row in read_record(old_run.evaluations).to_pylist()}
    for asked in history:
        row = rows[asked.candidate]
        assert row["measures.accuracy"] == asked.reward
        assert row["costs.flops"] == asked.costs["flops"]


def test_the_record_goes_on_where_it_was(old_run: RunFolder) -> None:
    """Old rows and new ones are one record: none is evaluated twice, and merging keeps all."""
    key = RecordKey(**json.loads((old_run.path / "identity.json").read_text())["key"])
    known = [asked.candidate for asked in _history(old_run)]
    record = EvaluationRecord(old_run.evaluations, key)
    found = [record.get(candidate) for candidate in known]
    assert all(found)
    first = found[0]
    assert first is not None
    fresh = type(first)((1, 1, 1, 1), first.measures, first.costs)
    record.append([fresh])
    # Opening it again merges the small files.
    again = EvaluationRecord(old_run.evaluations, key)
    assert [again.get(candidate) for candidate in known] == found
    assert again.get((1, 1, 1, 1)) == fresh
    assert read_record(old_run.evaluations).num_rows == len(set(known)) + 1


def test_the_report_is_made(old_run: RunFolder) -> None:
    results = load_results(old_run)
    candidate = _summary(old_run).best[0].candidate
    assert candidate in results.evaluations
    console = Console(record=True, width=200)
    console.print(terminal_results(results))
    assert "random" in console.export_text()


def test_reading_leaves_the_format_and_writing_raises_it(old_run: RunFolder) -> None:
    assert _format(old_run) == 1
    summary = _summary(old_run)
    with old_run.lock():
        assert _format(old_run) == 1
        write_summary(old_run, summary)
    assert _format(old_run) == FORMAT == 2
    assert _summary(old_run) == summary


def _format(run: RunFolder) -> int:
    return int(run.read_json(MARKER)["format"])


def _history(run: RunFolder) -> list[Asked]:
    return TrialHistory(run.histories / TRIAL).load()


def _summary(run: RunFolder) -> Summary:
    summary = read_summary(run)
    assert summary is not None
    return summary


def test_a_spec_with_parameters_of_then_says_where_to_correct_it(old_run: RunFolder) -> None:
    spec = old_run.read_spec()
    spec["agent"] = {"name": "ppo-lagrangian", "parameters": {"decide": "in-order"}}
    old_run.write_spec(spec)
    with pytest.raises(SpecError, match=r"spec\.yaml does not fit this version.*'decide'"):
        resume_run(old_run.path, trust=True)
