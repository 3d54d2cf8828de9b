"""The run folder: complete or not there, held by one process, atomic in what it rewrites."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import prunetune
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prunetune.errors import RunFolderError
from prunetune.search.run.files import write_durably
from prunetune.search.run.folder import FORMAT, MARKER, RunFolder
from prunetune.search.run.history import Asked, TrialHistory
from prunetune.search.run.record import read_record
from prunetune.search.run.summary import read_summary

DEEP = b"[" * 200_000 + b"]" * 200_000
SPEC = {"task": {"model": "resnet20"}, "budgets": {"flops": 0.5}, "seed": 0}


def test_a_new_run_holds_its_spec_and_environment(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "runs" / "first", SPEC)
    reopened = RunFolder.open(tmp_path / "runs" / "first")
    assert reopened.path == run.path
    assert reopened.read_spec() == SPEC
    environment = reopened.read_environment()
    assert environment["packages"]["ray"] and environment["cpus"] >= 1
    assert [p.name for p in run.path.parent.iterdir()] == ["first"], "nothing else is left"


def test_an_empty_folder_becomes_a_run(tmp_path: Path) -> None:
    assert RunFolder.create(tmp_path, SPEC).read_spec() == SPEC


def test_a_folder_with_something_in_it_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="not empty"):
        RunFolder.create(tmp_path, SPEC)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_existing_run_is_refused_and_resume_suggested(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", SPEC)
    with pytest.raises(RunFolderError, match="prunetune resume"):
        RunFolder.create(tmp_path / "run", {"other": 1})
    assert RunFolder.open(tmp_path / "run").read_spec() == SPEC


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder.create(tmp_path / "run", SPEC)
    with pytest.raises(RunFolderError, match="cannot be written"):
        RunFolder.create(tmp_path / "run" / "deeper", SPEC)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_place_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(RunFolderError, match="cannot be written"):
            RunFolder.create(tmp_path / "run", SPEC)
    finally:
        tmp_path.chmod(0o755)


def test_a_read_only_file_system_is_one_sentence() -> None:
    with pytest.raises(RunFolderError, match="cannot be written"):
        RunFolder.create("/proc/prunetune-run", SPEC)


def test_a_spec_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="cannot represent"):
        RunFolder.create(tmp_path / "run", {"model": object()})
    assert list(tmp_path.iterdir()) == []


def test_default_names_count_up(tmp_path: Path) -> None:
    names = [RunFolder.create_numbered("my spec", SPEC, tmp_path).name for _ in range(3)]
    assert names == ["my-spec-1", "my-spec-2", "my-spec-3"]
    (tmp_path / "my-spec-2" / "spec.yaml").unlink()
    (tmp_path / "my-spec-10").mkdir()
    assert RunFolder.create_numbered("my spec", SPEC, tmp_path).name == "my-spec-11"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not a run"):
        RunFolder.open(tmp_path)
    with pytest.raises(RunFolderError, match="no run folder"):
        RunFolder.open(tmp_path / "missing")


def test_a_run_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", SPEC)
    run.write_json("prunetune-run.json", {"format": FORMAT + 1, "prunetune": "9.0"})
    with pytest.raises(RunFolderError, match=rf"9\.0.*{prunetune.__version__}.*upgrade"):
        RunFolder.open(run.path)


def test_a_failed_write_keeps_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_durably(path, b"old")
    with pytest.raises(TypeError):
        write_durably(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _hold(path: Path, ready: Connection) -> None:
    with RunFolder.open(path).lock():
        ready.send(True)
        signal.pause()


def test_a_run_is_held_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", SPEC)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    holder = context.Process(target=_hold, args=(run.path, theirs))
    holder.start()
    assert ours.poll(30) and ours.recv()
    with pytest.raises(RunFolderError, match=f"in use by process {holder.pid} "):
        with run.lock():
            pass
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with run.lock():
        pass
    with run.lock():
        pass


@pytest.mark.parametrize(
    "content", [DEEP, b"\xff\xfe", b"", b"[]", b'{"format": "2"}', b"1" * 5000]
)
@pytest.mark.parametrize("name", ["spec.yaml", "summary.json", MARKER])
def test_a_broken_file_of_a_run_is_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {"name": "run"})
    (run.path / name).write_bytes(content)
    if name == "spec.yaml" and content == b'{"format": "2"}':
        assert run.read_spec() == {"format": "2"}
        return
    with pytest.raises(RunFolderError, match=name):
        read_summary(RunFolder.open(run.path))
        run.read_spec()


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {"name": "run"})
    os.mkfifo(run.path / "summary.json")
    (run.path / "spec.yaml").unlink()
    (run.path / "spec.yaml").symlink_to("/dev/zero")
    history = TrialHistory(run.histories / "trial")
    for folder, name in (
        (history.folder, "000000.parquet"),
        (run.evaluations, "part-0-a-00000000.parquet"),
    ):
        folder.mkdir(parents=True)
        os.mkfifo(folder / name)
    with pytest.raises(RunFolderError, match="is no file"):
        read_summary(run)
    for read in (run.read_spec, history.load):
        with pytest.raises(RunFolderError, match="is no file"):
            read()
    assert read_record(run.evaluations).num_rows == 0


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"reward": pa.array(["much"])}, "much"),
        ({"candidate": pa.array([[-1]])}, "whole numbers of at least 0"),
        ({"candidate": pa.array([[None]], pa.list_(pa.int32()))}, "whole numbers of at least 0"),
        ({"candidate": pa.array([[2**40]])}, "not in range"),
        ({"candidate": pa.array([{"a": 1}])}, "cast"),
        ({"feasible": pa.array([None], pa.bool_())}, "'feasible' has empty cells"),
        ({"feasible": None}, "no column 'feasible'"),
        ({"widths": pa.array([[1]])}, "there twice"),
    ],
)
def test_a_history_of_other_types_is_one_sentence(
    columns: dict[str, Any], said: str, tmp_path: Path
) -> None:
    history = TrialHistory(tmp_path / "trial")
    history.write(0, [Asked((1, 2), 0.5, {"flops": 0.5}, True, 0)])
    path = history.folder / "000000.parquet"
    table = pq.read_table(path)
    there = dict(zip(table.column_names, table.columns, strict=True)) | columns
    pq.write_table(pa.table({k: v for k, v in there.items() if v is not None}), path)
    with pytest.raises(RunFolderError, match=f"000000.*{said}"):
        history.load()


@pytest.mark.parametrize("content", [None, b"", b"[]", DEEP])
def test_a_lost_environment_is_made_again(content: bytes | None, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", SPEC)
    before, file = run.read_environment(), run.path / "environment.json"
    file.unlink() if content is None else file.write_bytes(content)
    # A reader says that nothing is known, and changes nothing.
    assert run.read_environment() == {}
    assert run.note_environment() == before == run.read_environment()
