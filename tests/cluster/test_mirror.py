"""A mirrored folder: what is at the URI is what is here, and nothing newer is overwritten."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.cluster.mirror import Mirror
from prunetune.errors import ClusterError

_NAMES = st.sampled_from(["a", "b/c", "b/d", "e/f/g"])
_STATES = st.lists(st.dictionaries(_NAMES, st.binary(max_size=3)), min_size=1, max_size=4)


def _content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _make(folder: Path, state: dict[str, bytes]) -> None:
    for name in set(_content(folder)) - set(state):
        (folder / name).unlink()
    for name, content in state.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@settings(max_examples=25, deadline=None)
@given(states=_STATES)
def test_a_copy_is_what_the_folder_is(
    states: list[dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("mirror")
    local, remote, again = folder / "here", folder / "there", folder / "again"
    mirror = Mirror(local, f"file://{remote}")
    assert not mirror.exists()
    for state in states:
        _make(local, state)
        mirror.copy()
        assert _content(remote) == state
    Mirror(again, f"file://{remote}").fetch()
    assert _content(again) == states[-1]


def test_what_is_being_written_is_not_copied(tmp_path: Path) -> None:
    _make(tmp_path / "here", {".a.tmp": b"half", ".lock": b"", "a": b"whole"})
    Mirror(tmp_path / "here", f"file://{tmp_path}/there").copy()
    assert _content(tmp_path / "there") == {"a": b"whole"}


def test_what_was_written_here_after_the_last_copy_stays(tmp_path: Path) -> None:
    local, remote = tmp_path / "here", tmp_path / "there"
    _make(remote, {"a": b"copied", "b": b"only there"})
    _make(local, {"a": b"newer", "c": b"only here"})
    later = time.time() + 10
    os.utime(local / "a", (later, later))
    mirror = Mirror(local, f"file://{remote}")
    mirror.fetch()
    expected = {"a": b"newer", "b": b"only there", "c": b"only here"}
    assert _content(local) == expected
    mirror.copy()
    assert _content(remote) == expected


def test_it_copies_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    local, remote = tmp_path / "here", tmp_path / "there"
    with Mirror(local, f"file://{remote}", seconds=0.01):
        _make(local, {"a": b"1"})
        end = time.monotonic() + 30
        # A file appears before its content does.
        while _content(remote) != {"a": b"1"} and time.monotonic() < end:
            time.sleep(0.01)
        assert _content(remote) == {"a": b"1"}
        _make(local, {"b": b"2"})
    assert _content(remote) == {"b": b"2"}


def test_a_storage_that_is_gone_is_one_sentence_at_the_end(tmp_path: Path) -> None:
    local = tmp_path / "here"
    (tmp_path / "file").touch()
    with (
        pytest.raises(ClusterError, match=r"cannot be written .*what was evaluated here is in"),
        Mirror(local, f"file://{tmp_path}/file/there", seconds=0.01),
    ):
        _make(local, {"a": b"1"})
        time.sleep(0.05)
