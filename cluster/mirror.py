"""A run folder on this machine, copied to a URI while it grows."""

from __future__ import annotations

import os
import threading
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.fs

from ..errors import ClusterError
from .storage import open_storage

__all__ = ["Mirror"]

_COPY_SECONDS = 10.0

_Version = tuple[int, int]


class Mirror:
    """Copies what changed in a folder to a URI, every few seconds and at the end.

    What is written between two copies is lost if this machine is. Files are copied whole and in an
    order in which nothing refers to what is not there yet: deep files before those of the folders
    above them. A copy that fails is repeated with the next; only the last one raises.

    Args:
        local: The folder; may not exist yet.
        uri: Where its copy is.
        seconds: Between two copies, > 0.

    Attributes:
        local: The folder.

    Raises:
        ClusterError: If the URI cannot be opened.
    """

    def __init__(self, local: Path, uri: str, seconds: float = _COPY_SECONDS) -> None:
        self.local = local
        self._uri = uri
        self._seconds = seconds
        self._filesystem, self._remote = open_storage(uri)
        self._copied: dict[str, _Version] = {}
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def exists(self) -> bool:
        """Say whether there is anything at the URI."""
        try:
            kind = self._filesystem.get_file_info(self._remote).type
        except (pa.ArrowException, OSError) as error:
            raise self._failed("read", error) from None
        return bool(kind != pyarrow.fs.FileType.NotFound)

    def names(self) -> list[str]:
        """Return the names of the folders right below the URI.

        Raises:
            ClusterError: If it cannot be read.
        """
        try:
            selector = pyarrow.fs.FileSelector(self._remote, allow_not_found=True)
            entries = self._filesystem.get_file_info(selector)
        except (pa.ArrowException, OSError) as error:
            raise self._failed("read", error) from None
        return [e.base_name for e in entries if e.type == pyarrow.fs.FileType.Directory]

    def fetch(self) -> None:
        """Bring to this machine what is newer at the URI. What is only here stays.

        Raises:
            ClusterError: If it cannot be read.
        """
        try:
            selector = pyarrow.fs.FileSelector(self._remote, recursive=True, allow_not_found=True)
            for info in self._filesystem.get_file_info(selector):
                if info.type != pyarrow.fs.FileType.File:
                    continue
                name = PurePosixPath(info.path).relative_to(self._remote).as_posix()
                target = self.local / name
                # A file that was changed here after it was copied has what the URI lacks.
                if target.is_file() and target.stat().st_mtime_ns > (info.mtime_ns or 0):
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".{target.name}.fetched")
                with self._filesystem.open_input_stream(info.path) as source:
                    temporary.write_bytes(source.read())
                os.replace(temporary, target)
                self._copied[name] = _version(target)
        except (pa.ArrowException, OSError) as error:
            raise self._failed("read", error) from None

    def copy(self) -> None:
        """Copy what changed since the last time, and delete what is gone.

        Raises:
            ClusterError: If it cannot be written.
        """
        there = dict(self._files())
        try:
            for name in sorted(there, key=lambda name: (-name.count("/"), name)):
                if self._copied.get(name) != there[name]:
                    self._send(name)
                    self._copied[name] = there[name]
            for name in [name for name in self._copied if name not in there]:
                self._filesystem.delete_file(f"{self._remote}/{name}")
                del self._copied[name]
        except (pa.ArrowException, OSError) as error:
            raise self._failed("written", error) from None

    def __enter__(self) -> Mirror:
        self._thread = threading.Thread(target=self._copy_now_and_then, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        assert self._thread is not None
        self._thread.join()
        self.copy()

    def _copy_now_and_then(self) -> None:
        while not self._end.wait(self._seconds):
            try:
                self.copy()
            except ClusterError:
                continue

    def _files(self) -> list[tuple[str, _Version]]:
        """Return the relative name and the version of every file that is complete."""
        found = []
        for folder, inner, names in os.walk(self.local):
            inner[:] = [name for name in inner if not name.startswith(".")]
            for name in names:
                path = Path(folder, name)
                if name.startswith("."):  # being written, or a lock
                    continue
                try:
                    found.append((path.relative_to(self.local).as_posix(), _version(path)))
                except FileNotFoundError:  # gone meanwhile
                    continue
        return found

    def _send(self, name: str) -> None:
        try:
            content = (self.local / name).read_bytes()
        except FileNotFoundError:  # gone meanwhile
            return
        target = f"{self._remote}/{name}"
        self._filesystem.create_dir(str(PurePosixPath(target).parent), recursive=True)
        with self._filesystem.open_output_stream(target) as file:
            file.write(content)

    def _failed(self, what: str, error: BaseException) -> ClusterError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        return ClusterError(
            f"The storage {self._uri!r} cannot be {what} ({reason}); what was evaluated here is in "
            f"{self.local}."
        )


def _version(path: Path) -> _Version:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
