"""Files of a run: written completely or not at all, and read within bounds."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from ...errors import RunFolderError

__all__ = ["read_content", "read_file", "sync_folder", "write_durably"]

# Larger than any part of a record of ten million evaluations.
_MOST_BYTES = 4 * 2**30


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is there completely, or not at all, even after a power cut.

    Args:
        path: Where; its folder must exist.
        content: What.

    Raises:
        OSError: If it cannot be written; an older file at ``path`` is then untouched.
    """
    # The hidden name ends with no known suffix, so that no reader takes it for a finished file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_content(path: Path) -> bytes:
    """The content of a file of a run.

    Raises:
        FileNotFoundError: If it is not there.
        RunFolderError: If it is a link, no plain file, too large, or cannot be read.
    """
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            raise RunFolderError(
                f"{path} is no file of its own, or larger than any of a run; restore it from a "
                "copy."
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunFolderError(
            f"The file {path} cannot be read ({error.strerror or error}); restore it from a copy."
        ) from error


def read_file(path: Path) -> str:
    """The text of a file of a run.

    Raises:
        RunFolderError: If it is not there, is no plain file, too large or not UTF-8.
    """
    try:
        return read_content(path).decode()
    except FileNotFoundError:
        raise RunFolderError(f"The file {path} is not there; restore it from a copy.") from None
    except UnicodeDecodeError as error:
        raise RunFolderError(
            f"The file {path} cannot be read ({error}); restore it from a copy."
        ) from None
