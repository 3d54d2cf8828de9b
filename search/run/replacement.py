"""What takes the place of a run's networks, all of it or nothing.

New networks, their spec and their summary are made in a folder beside those that the run has.
Renaming that folder is what decides: before, the run is as it was; after, whoever works on the run
next puts everything in its place, however often that is interrupted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import RunFolderError
from ...models.artifact.files import WEIGHTS, file_digest
from ...models.artifact.stale import stale_exports
from .files import sync_folder
from .folder import RunFolder

__all__ = ["Replacement", "put_in_place"]

_BEGUN, _DECIDED = ".replacement", ".replacement-decided"
# In this order: what the summary says is true when it is written.
_FILES = ("identity.json", "spec.yaml", "summary.json")


class Replacement:
    """A replacement that is being made. Only who holds the run's lock may use it.

    Attributes:
        run: The run to be: its ``best``, ``spec.yaml``, ``identity.json`` and ``summary.json``.

    Args:
        folder: The run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.run = RunFolder(folder.path / _BEGUN)

    def spec(self) -> dict[str, Any] | None:
        """The spec of the one that was begun, ``None`` where none was."""
        return self.run.read_spec() if (self.run.path / "spec.yaml").is_file() else None

    def begin(self, spec: Mapping[str, Any]) -> None:
        """Make room for it, or go on with the one that was begun by the same spec.

        Raises:
            RunFolderError: If it cannot be written.
        """
        if self.spec() != dict(spec):
            self.drop()
            self.run.write_spec(spec)

    def drop(self) -> None:
        """Forget what was begun; the run stays as it is."""
        shutil.rmtree(self.run.path, ignore_errors=True)

    def decide(self) -> tuple[str, ...]:
        """Let it take the place of what the run has.

        Returns:
            Names of exports of the earlier networks, which were removed.

        Raises:
            RunFolderError: If it cannot be written.
        """
        try:
            os.replace(self.run.path, self._folder.path / _DECIDED)
            sync_folder(self._folder.path)
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        return put_in_place(self._folder)


def put_in_place(folder: RunFolder) -> tuple[str, ...]:
    """Finish a replacement that was decided, if there is one; can be repeated.

    Args:
        folder: The run, locked by the caller.

    Returns:
        Names of exports of the earlier networks, which were removed.

    Raises:
        RunFolderError: If it cannot be written.
    """
    decided = RunFolder(folder.path / _DECIDED)
    if not decided.path.is_dir():
        return ()
    removed: list[str] = []
    try:
        for new in sorted(decided.best.glob("*")):
            removed += _replace_network(new, folder.best / new.name)
        for name in _FILES:
            if (decided.path / name).is_file():
                os.replace(decided.path / name, folder.path / name)
        sync_folder(folder.path)
        shutil.rmtree(decided.path)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return tuple(removed)


def _replace_network(new: Path, place: Path) -> list[str]:
    """Exchange the files of an artifact; exports of the earlier weights go first."""
    place.mkdir(parents=True, exist_ok=True)
    exports: tuple[str, ...] = ()
    if (new / WEIGHTS).is_file():
        exports = stale_exports(place, file_digest(new / WEIGHTS))
    for name in exports:
        (place / name).unlink()
    for path in sorted(new.iterdir()):
        if path.is_file():
            os.replace(path, place / path.name)
    sync_folder(place)
    return [f"{place.name}/{name}" for name in exports]


def _unwritable(folder: RunFolder, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"The run {folder.path} cannot be written ({error.strerror or error}); free space or make "
        "it writable, and repeat the command."
    )
