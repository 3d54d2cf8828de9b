"""Checkpoints of trials: sealed when they are complete, so that the newest whole one is found.

Tune copies a checkpoint file by file, points at the newest one only every few seconds, and removes
older ones meanwhile. After a crash its pointer may therefore name a checkpoint that is missing,
half-written, or older than need be. So a checkpoint says itself whether it is whole and how far its
trial had come, and a trial looks for its newest one on disk.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .folder import sync_folder

__all__ = [
    "TrialProgress",
    "read_checkpoint",
    "retire_experiment",
    "seal_checkpoint",
    "trial_checkpoints",
    "whole_checkpoints",
]

_SEAL = "trial.json"
_RETIRED = "-retired-"


@dataclass(frozen=True)
class TrialProgress:
    """How far a trial has come.

    Attributes:
        iterations: Iterations of the agent.
        asked: Candidates asked for.
        best: Reward, accuracy and costs of the best feasible candidate; empty before there is one.
    """

    iterations: int = 0
    asked: int = 0
    best: dict[str, float] = field(default_factory=dict)


def seal_checkpoint(folder: Path, progress: TrialProgress) -> None:
    """Declare a checkpoint complete; call it last.

    Args:
        folder: The checkpoint, with everything else in it.
        progress: How far its trial has come.
    """
    files = {str(path.relative_to(folder)): _checksum(path) for path in _files(folder)}
    (folder / _SEAL).write_text(json.dumps({**asdict(progress), "files": files}))


def read_checkpoint(folder: Path) -> TrialProgress | None:
    """How far a checkpoint's trial had come, or ``None`` where it is not whole."""
    try:
        seal = json.loads((folder / _SEAL).read_text())
        files = seal.pop("files")
        if any(_checksum(folder / name) != checksum for name, checksum in files.items()):
            return None
        return TrialProgress(**seal)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def whole_checkpoints(folders: Iterable[Path]) -> Iterator[tuple[Path, TrialProgress]]:
    """Those of the checkpoints that are whole, the one that has come furthest first."""
    found = [(folder, read_checkpoint(folder)) for folder in folders]
    whole = [(folder, progress) for folder, progress in found if progress is not None]
    return iter(sorted(whole, key=lambda each: each[1].iterations, reverse=True))


def trial_checkpoints(experiment: Path, trial: str) -> list[Path]:
    """All checkpoints of a trial, whole or not.

    Args:
        experiment: Folder of Tune's present experiment; those that were retired count too.
        trial: Its name, which is its folder's.
    """
    folders = (experiment, *_retired(experiment))
    return [path for folder in folders for path in (folder / trial).glob("checkpoint_*")]


def retire_experiment(experiment: Path) -> None:
    """Put Tune's experiment aside, if there is one; its checkpoints are still found."""
    if experiment.exists():
        number = len(_retired(experiment)) + 1
        experiment.rename(experiment.with_name(f"{experiment.name}{_RETIRED}{number}"))
        sync_folder(experiment.parent)


def _retired(experiment: Path) -> list[Path]:
    return sorted(experiment.parent.glob(f"{experiment.name}{_RETIRED}*"))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SEAL)


def _checksum(path: Path) -> int:
    return zlib.crc32(path.read_bytes())
