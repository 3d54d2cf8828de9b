"""The run folder: everything a search or comparison writes, and all that resuming it needs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ... import __version__
from ...errors import RunFolderError, SpecError
from ..spec.paths import next_name
from ..spec.yaml_text import yaml_values
from .files import read_file, sync_folder, write_durably
from .locks import hold
from .machine import describe_environment

# Raised when a newer layout cannot be read by an older prunetune. In 1 the candidates of records,
# histories and summaries are named ``widths``; they are still read.
FORMAT = 2

MARKER = "prunetune-run.json"
_LOCK = ".lock"
_ENVIRONMENT = "environment.json"


def names_in(folder: Path) -> list[str]:
    """What is in a folder; nothing where it does not exist."""
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


class RunFolder:
    """One run's folder. Use `create` for a new run and `open` for one that exists.

    Attributes:
        path: The folder, absolute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path | str, spec: Mapping[str, Any]) -> RunFolder:
        """Make the folder of a new run.

        Args:
            path: Must not exist, or be an empty folder.
            spec: The resolved spec, every default written out; plain YAML values.

        Raises:
            RunFolderError: If something is there already or the folder cannot be written; nothing
                half-written is left.
        """
        target = Path(path).expanduser().absolute()
        if (target / MARKER).exists():
            raise RunFolderError(
                f"The folder {target} holds a run already; continue it with `prunetune resume "
                f"{path}`, or choose another output."
            )
        if target.exists() and not target.is_dir():
            raise RunFolderError(f"The output {target} is a file; choose a folder's name.")
        try:
            if target.exists():
                if any(target.iterdir()):
                    raise RunFolderError(
                        f"The folder {target} is not empty; choose another output."
                    )
                # Perhaps a mount point, which cannot be replaced by renaming another folder.
                cls._fill(target, spec)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                cls._fill_beside(target, spec)
        except OSError as error:
            raise RunFolderError(
                f"The run folder {target} cannot be written ({error.strerror or error}); choose "
                "another output or make it writable."
            ) from error
        return cls(target)

    @classmethod
    def create_numbered(cls, name: str, spec: Mapping[str, Any], root: Path | str) -> RunFolder:
        """Make the folder ``ROOT/NAME-NUMBER`` with the lowest number above all there are.

        Args:
            name: The spec's name; characters that are awkward in paths become ``-``.
            spec: The resolved spec, as for `create`.
            root: Where runs are kept, for example ``runs``.

        Raises:
            RunFolderError: If it cannot be written.
        """
        base = Path(root).expanduser().absolute()
        while True:
            target = base / next_name(name, names_in(base))
            try:
                return cls.create(target, spec)
            except RunFolderError:
                # Another process may have taken the number since; anything else is final.
                if not target.exists():
                    raise

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Open the folder of a run that exists.

        Raises:
            RunFolderError: If it is not a run's folder, or one of a newer prunetune.
        """
        target = Path(path).expanduser().absolute()
        if not target.is_dir():
            raise RunFolderError(f"There is no run folder {target}; check the path.")
        if not (target / MARKER).exists():
            raise RunFolderError(
                f"The folder {target} is not a run of prunetune: it has no {MARKER}."
            )
        marker = cls(target).read_json(MARKER)
        layout, version = marker.get("format"), str(marker.get("prunetune"))
        if not isinstance(layout, int):
            raise RunFolderError(
                f"The file {target / MARKER} does not say its format; restore it from a copy."
            )
        if layout > FORMAT:
            raise RunFolderError(
                f"The run {target} was written by prunetune {version}, which is newer than this "
                f"one ({__version__}); upgrade prunetune."
            )
        return cls(target)

    @classmethod
    def _fill_beside(cls, target: Path, spec: Mapping[str, Any]) -> None:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            cls._fill(temporary, spec)
            # mkdtemp makes private folders; a run is as readable as any other new folder.
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o777 & ~mask)
            os.rename(temporary, target)
            sync_folder(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    @classmethod
    def _fill(cls, folder: Path, spec: Mapping[str, Any]) -> None:
        written: list[Path] = []
        text = _as_yaml(spec)
        marker = {
            "format": FORMAT,
            "prunetune": __version__,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        try:
            # The marker comes last: only a complete folder is a run.
            for name, content in (
                ("spec.yaml", text),
                (_ENVIRONMENT, _as_json(describe_environment())),
                (MARKER, _as_json(marker)),
            ):
                written.append(folder / name)
                write_durably(folder / name, content.encode())
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            raise

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def evaluations(self) -> Path:
        """Folder of the evaluation record."""
        return self.path / "evaluations"

    @property
    def histories(self) -> Path:
        """Folder of the trials' histories, one folder per trial."""
        return self.path / "histories"

    @property
    def tune(self) -> Path:
        """Folder of Ray Tune's own state."""
        return self.path / "tune"

    @property
    def rungs(self) -> Path:
        """Folder of the decisions to stop hopeless searches."""
        return self.path / "rungs"

    @property
    def best(self) -> Path:
        """Folder of the artifacts of the best candidates."""
        return self.path / "best"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.path / "report"

    @property
    def summary_path(self) -> Path:
        """The file ``summary.json``."""
        return self.path / "summary.json"

    def write_spec(self, spec: Mapping[str, Any]) -> None:
        """Replace the resolved spec.

        Raises:
            RunFolderError: If it cannot be written.
        """
        self.write_text("spec.yaml", _as_yaml(spec))

    def read_spec(self) -> dict[str, Any]:
        """The resolved spec as plain values.

        Raises:
            RunFolderError: If it is missing or not YAML.
        """
        path = self.path / "spec.yaml"
        try:
            spec = yaml_values(read_file(path), f"The spec {path}")
        except SpecError as error:
            raise RunFolderError(str(error)) from None
        if not isinstance(spec, dict):
            raise RunFolderError(f"The spec {path} is not a mapping; restore it from a copy.")
        return spec

    def read_environment(self) -> dict[str, Any]:
        """What `create` noted of the machine and its packages; empty where that was lost."""
        try:
            return self.read_json(_ENVIRONMENT)
        except RunFolderError:
            return {}

    def note_environment(self) -> dict[str, Any]:
        """What `create` noted of the machine, or, where that was lost, what is true now.

        Raises:
            RunFolderError: If it cannot be written.
        """
        noted = self.read_environment()
        if not noted:
            noted = describe_environment()
            self.write_json(_ENVIRONMENT, noted)
        return noted

    def read_summary(self) -> dict[str, Any]:
        """The summary; empty before the first one is written.

        Raises:
            RunFolderError: If it is damaged.
        """
        return self.read_json("summary.json") if self.summary_path.exists() else {}

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the run atomically, making its folder.

        Args:
            name: Path relative to the run folder.
            text: Content, written as UTF-8.

        Raises:
            RunFolderError: If it cannot be written.
        """
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, text.encode())
        except OSError as error:
            raise RunFolderError(
                f"The file {path} cannot be written ({error.strerror or error}); free space or "
                "make the run folder writable."
            ) from error
        return path

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file of the run atomically; see `write_text`."""
        return self.write_text(name, _as_json(value))

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the run.

        Raises:
            RunFolderError: If it is missing or damaged.
        """
        path = self.path / name
        try:
            value = json.loads(read_file(path))
        except RecursionError:
            raise RunFolderError(
                f"The file {path} is nested too deeply; restore it from a copy."
            ) from None
        except ValueError as error:
            raise RunFolderError(
                f"The file {path} is not JSON ({error}); restore it from a copy."
            ) from None
        if not isinstance(value, dict):
            raise RunFolderError(f"The file {path} is not a JSON object; restore it from a copy.")
        return value

    def raise_format(self) -> None:
        """Mark a run as one of today's layout, before anything is written in it.

        An older prunetune then refuses the run, because it could read only a part of it.

        Raises:
            RunFolderError: If the mark cannot be read or written.
        """
        marker = self.read_json(MARKER)
        if int(marker["format"]) < FORMAT:
            self.write_json(MARKER, {**marker, "format": FORMAT, "prunetune": __version__})

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run, so that no second process runs or resumes it at the same time.

        The operating system releases it when this process ends, however it ends.

        Raises:
            RunFolderError: If another process holds it or the folder is not writable.
        """
        with hold(self.path / _LOCK):
            yield


def _as_yaml(spec: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True)


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
