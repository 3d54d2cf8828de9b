"""A run that somebody else made is continued only when its user trusts it; nothing runs before."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
from prunetune.errors import PruneTuneError, RunFolderError
from prunetune.search.engine.entry import finetune_run, resume_run
from prunetune.search.run.folder import MARKER, RunFolder
from prunetune.search.run.trust import check_trusted, remember
from prunetune.search.spec.reading import read_spec

from .runs import Touches

_TRAP = """
from pathlib import Path
from prunetune.rewards.single import AccuracyReward as Mine
Path(__file__).with_name("ran").touch()
"""


@pytest.fixture
def stranger(tmp_path: Path, cache_folder: Path) -> Path:
    """A folder that somebody sent: its spec names a file in it, and Tune's state is a trap."""
    values = {"task": {"model": "digits-net"}, "budgets": {"flops": 0.5}, "agent": "random"}
    spec = read_spec(values).to_dict()
    spec["reward"] = {"name": f"{tmp_path}/run/trap.py:Mine", "parameters": {}}
    run = RunFolder.create(tmp_path / "run", spec)
    (run.path / "trap.py").write_text(_TRAP)
    run.tune.mkdir()
    trap = pickle.dumps(Touches(run.path / "unpickled"))
    for name in ("tuner.pkl", "trainable.pkl", "experiment_state-1.json", "searcher-state.pkl"):
        (run.tune / name).write_bytes(trap)
    return run.path


def _nothing_ran(run: Path) -> bool:
    return not (run / "ran").exists() and not (run / "unpickled").exists()


def test_nothing_of_a_strangers_run_runs_before_it_is_trusted(stranger: Path) -> None:
    for go_on in (resume_run, lambda run: finetune_run(run, ["epochs=1"])):
        with pytest.raises(RunFolderError, match=r"trap\.py:Mine and the pickles.*--trust") as said:
            go_on(stranger)
        assert "random" not in str(said.value)
    assert _nothing_ran(stranger)


def test_what_was_begun_here_is_continued_and_what_was_moved_or_changed_is_not(
    stranger: Path,
) -> None:
    run = RunFolder.open(stranger)
    spec = run.read_spec()
    remember(run)
    check_trusted(run, spec, trust=False)
    # Under another name it is the same folder.
    link = stranger.with_name("link")
    link.symlink_to(stranger)
    check_trusted(RunFolder.open(link), spec, trust=False)
    copy = RunFolder.open(shutil.copytree(stranger, stranger.with_name("copy")))
    with pytest.raises(RunFolderError, match="--trust"):
        check_trusted(copy, spec, trust=False)
    check_trusted(copy, spec, trust=True)
    check_trusted(copy, spec, trust=False)
    # Another run in its place.
    shutil.rmtree(stranger)
    other = RunFolder.create(stranger, spec)
    for mark in ({}, {"id": None}, {"id": "another"}):
        other.write_json(MARKER, {**other.read_json(MARKER), **mark})
        with pytest.raises(RunFolderError, match="--trust"):
            check_trusted(other, spec, trust=False)


def test_without_a_cache_every_continuation_asks(
    stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNETUNE_CACHE", "/proc/no-cache")
    run = RunFolder.open(stranger)
    remember(run)
    with pytest.raises(RunFolderError, match="--trust"):
        check_trusted(run, run.read_spec(), trust=False)
    check_trusted(run, run.read_spec(), trust=True)


def test_a_trusted_run_is_continued_without_tunes_pickles(stranger: Path) -> None:
    run = RunFolder.open(stranger)
    run.write_spec({**run.read_spec(), "evaluations": "many"})
    with pytest.raises(PruneTuneError, match="evaluations"):
        resume_run(stranger, trust=True)
    assert not (stranger / "unpickled").exists()
