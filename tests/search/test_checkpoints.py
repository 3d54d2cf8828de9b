"""Checkpoints of trials: only whole ones count, and the furthest of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prunetune.search.run.checkpoints import (
    TrialState,
    read_checkpoint,
    seal_checkpoint,
    whole_checkpoints,
)


def _checkpoint(folder: Path, iterations: int) -> Path:
    (folder / "agent").mkdir(parents=True)
    (folder / "agent" / "weights").write_bytes(bytes(range(200)))
    (folder / "state").write_bytes(b"state")
    state = TrialState(iterations, asked=8 * iterations, best={"reward": 0.5})
    seal_checkpoint(folder, state)
    return folder


def test_a_sealed_checkpoint_says_how_far_its_trial_had_come(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path / "checkpoint", 3)
    assert read_checkpoint(folder) == TrialState(3, 24, {"reward": 0.5})
    # What Tune adds of its own is not ours to judge.
    (folder / ".is_checkpoint").touch()
    assert read_checkpoint(folder) is not None


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _truncate(folder / "agent" / "weights"),
        lambda folder: _flip(folder / "agent" / "weights"),
        lambda folder: (folder / "state").unlink(),
        lambda folder: _truncate(folder / "trial.json"),
        lambda folder: (folder / "trial.json").write_text(""),
        lambda folder: (folder / "trial.json").write_text("[]"),
        lambda folder: (folder / "trial.json").unlink(),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    older, newer = (_checkpoint(tmp_path / name, int(name)) for name in "34")
    folders = [older, newer, tmp_path / "missing"]
    assert [path for path, _ in whole_checkpoints(folders)] == [newer, older]
    damage(newer)
    assert read_checkpoint(newer) is None
    assert [path for path, _ in whole_checkpoints(folders)] == [older]
