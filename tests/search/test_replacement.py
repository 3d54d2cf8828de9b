"""Replacing what a run delivered: all of it or nothing, wherever it is interrupted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from prunetune.search.run import replacement as module
from prunetune.search.run.folder import RunFolder
from prunetune.search.run.replacement import Replacement, put_in_place

_SPEC = {"name": "run", "finetune": {"epochs": 2}}


def _content(folder: Path) -> dict[str, str]:
    names = (
        "spec.yaml",
        "summary.json",
        "identity.json",
        "best/a/pruning.json",
        "best/b/pruning.json",
    )
    return {name: (folder / name).read_text() for name in names if (folder / name).exists()}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with two networks."""
    run = RunFolder.create(tmp_path / "run", {"name": "run", "finetune": {"epochs": 1}})
    for name in ("best/a/pruning.json", "best/b/pruning.json", "summary.json", "identity.json"):
        run.write_json(name, {"is": "old"})
    return run


def _made(run: RunFolder) -> Replacement:
    made = Replacement(run)
    made.begin(_SPEC)
    for name in ("best/a/pruning.json", "best/b/pruning.json", "summary.json", "identity.json"):
        made.run.write_json(name, {"is": "new"})
    return made


def test_nothing_changes_before_it_is_decided_and_everything_after(run: RunFolder) -> None:
    before = _content(run.path)
    made = _made(run)
    assert _content(run.path) == before
    assert put_in_place(run) == ()
    wanted = _content(made.run.path)
    made.decide()
    assert _content(run.path) == wanted
    assert not [path.name for path in run.path.iterdir() if "replacement" in path.name]


def test_what_was_begun_by_the_same_spec_is_gone_on_with(run: RunFolder) -> None:
    made = _made(run)
    again = Replacement(run)
    again.begin(_SPEC)
    assert (made.run.path / "summary.json").is_file()
    again.begin({**_SPEC, "name": "another"})
    assert not (made.run.path / "summary.json").exists()


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("moves", range(7))
def test_what_was_decided_is_finished_whatever_killed_it(
    run: RunFolder, moves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _made(run)
    wanted, before = _content(made.run.path), _content(run.path)
    replace: Callable[..., None] = os.replace
    left = [moves]

    def killed(*arguments: object) -> None:
        if not left[0]:
            raise _Killed
        left[0] -= 1
        replace(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", killed)
        if moves < 6:
            with pytest.raises(_Killed):
                made.decide()
        else:
            made.decide()
    if not moves:
        # It was not decided.
        assert _content(run.path) == before
        return
    put_in_place(run)
    put_in_place(run)
    assert _content(run.path) == wanted


def test_a_copy_in_the_middle_of_it_is_as_good(run: RunFolder, tmp_path: Path) -> None:
    made = _made(run)
    wanted = _content(made.run.path)
    os.replace(made.run.path, run.path / ".replacement-decided")
    copy = RunFolder(Path(shutil.copytree(run.path, tmp_path / "copy")))
    put_in_place(copy)
    assert _content(copy.path) == wanted
