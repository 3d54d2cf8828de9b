"""How far trials have come, from our own files alone: sealed checkpoints, and how trials ended.

Tune's own state is never read, because it is a pickle that may be somebody else's: a run that is
continued gets a new experiment, whose trials begin with their newest checkpoint. Nor could it be
believed. Tune copies a checkpoint file by file, points at the newest one only every few seconds,
and removes older ones meanwhile, so that after a crash its pointer may name one that is missing,
half-written, or older than need be. So a checkpoint says itself whether it is whole and how far its
trial had come, and a trial looks for its newest one on disk.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from ...errors import RunFolderError
from .files import read_content, sync_folder, write_durably

__all__ = [
    "TrialEnd",
    "TrialState",
    "experiments",
    "read_checkpoint",
    "read_end",
    "retire_experiment",
    "seal_checkpoint",
    "trial_checkpoints",
    "whole_checkpoints",
    "write_end",
]

_SEAL, _END = "trial.json", "ended.json"
_RETIRED = "-retired-"
# Of a trial's checkpoints in retired experiments: the newest, and one in case that it is damaged.
_KEPT = 2
# What reading and understanding a file may end in that anything may have been done to.
_BROKEN = (
    RunFolderError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
)


@dataclass(frozen=True)
class TrialState:
    """How far a trial has come.

    Attributes:
        iterations: Iterations of the agent.
        asked: Candidates asked for.
        best: Reward, accuracy and costs of the best feasible candidate; empty before there is one.
    """

    iterations: Annotated[int, Field(ge=0)] = 0
    asked: Annotated[int, Field(ge=0)] = 0
    best: dict[str, float] = field(default_factory=dict)


def seal_checkpoint(folder: Path, state: TrialState) -> None:
    """Declare a checkpoint complete; call it last.

    Args:
        folder: The checkpoint, with everything else in it.
        state: How far its trial has come.
    """
    files = {_name(path, folder): _checksum(path) for path in _files(folder)}
    (folder / _SEAL).write_text(json.dumps({**asdict(state), "files": files}))


def read_checkpoint(folder: Path) -> TrialState | None:
    """How far a checkpoint's trial had come, or ``None`` where it is not whole."""
    try:
        seal = json.loads(read_content(folder / _SEAL))
        files, there = (
            dict(seal.pop("files")),
            {_name(path, folder): path for path in _files(folder)},
        )
        # What Tune adds of its own is hidden.
        if any(name not in files for name in there if not name.startswith(".")):
            return None
        if any(_checksum(there[name]) != checksum for name, checksum in files.items()):
            return None
        return _STATES.validate_python(seal)
    except _BROKEN:
        return None


def whole_checkpoints(folders: Iterable[Path]) -> Iterator[tuple[Path, TrialState]]:
    """Those of the checkpoints that are whole, the one that has come furthest first."""
    found = [(folder, read_checkpoint(folder)) for folder in folders]
    whole = [(folder, state) for folder, state in found if state is not None]
    return iter(sorted(whole, key=lambda each: each[1].iterations, reverse=True))


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended.

    Attributes:
        evaluations: Candidates that it might have asked for; a longer search has not ended.
        progress: How far it came.
        failure: Why it ended early, or ``None``.
    """

    evaluations: int
    progress: TrialState
    failure: str | None = None


_STATES, _ENDS = TypeAdapter(TrialState), TypeAdapter(TrialEnd)


def write_end(folder: Path, end: TrialEnd) -> None:
    """Note that a trial has ended, durably.

    Args:
        folder: Of its history.
        end: How it ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / _END, json.dumps(asdict(end)).encode())


def read_end(folder: Path, evaluations: int) -> TrialEnd | None:
    """How a trial ended that may ask for so many candidates; ``None`` where it has not."""
    try:
        end = _ENDS.validate_python(json.loads(read_content(folder / _END)))
    except _BROKEN:
        return None
    return end if end.evaluations == evaluations else None


def trial_checkpoints(experiment: Path, trial: str) -> list[Path]:
    """All checkpoints of a trial, whole or not.

    Args:
        experiment: Folder of Tune's present experiment; those that were retired count too.
        trial: Its name, which is its folder's.
    """
    folders = experiments(experiment)
    return [path for folder in folders for path in (folder / trial).glob("checkpoint_*")]


def experiments(experiment: Path) -> list[Path]:
    """The folders of a run's experiments under Tune: those that were retired, then the present."""
    return [*_retired(experiment), experiment]


def retire_experiment(experiment: Path) -> None:
    """Put Tune's experiment aside, if there is one.

    The newest checkpoints of its trials are still found; older ones are removed, so that a run
    that is continued often does not grow with it.
    """
    if experiment.exists():
        numbers = [_number(experiment, path) for path in _retired(experiment)]
        name = f"{experiment.name}{_RETIRED}{max(numbers, default=0) + 1}"
        experiment.rename(experiment.with_name(name))
        sync_folder(experiment.parent)
    trials = {path.name for folder in _retired(experiment) for path in folder.iterdir()}
    for trial in trials:
        for folder, _ in list(whole_checkpoints(trial_checkpoints(experiment, trial)))[_KEPT:]:
            shutil.rmtree(folder, ignore_errors=True)


def _retired(experiment: Path) -> list[Path]:
    found = experiment.parent.glob(f"{experiment.name}{_RETIRED}*")
    numbered = [path for path in found if _number(experiment, path) > 0]
    return sorted(numbered, key=lambda path: _number(experiment, path))


def _number(experiment: Path, retired: Path) -> int:
    match = re.fullmatch(re.escape(experiment.name + _RETIRED) + r"(\d+)", retired.name)
    return int(match.group(1)) if match else 0


def _files(folder: Path) -> list[Path]:
    """What a seal covers; nothing that leads out of the checkpoint."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in files if path.name != _SEAL)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _checksum(path: Path) -> int:
    return zlib.crc32(path.read_bytes())
