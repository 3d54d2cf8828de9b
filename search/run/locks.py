"""Locks that the operating system releases when their process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ...errors import RunFolderError

__all__ = ["hold", "take"]

_POLL_SECONDS = 0.1


def take(path: Path, patience: float = 0.0) -> TextIO:
    """Take a lock; close what is returned to give it back.

    Args:
        path: The lock's file; made if it is missing, its folder too.
        patience: Seconds to wait for its holder to let go or die.

    Raises:
        RunFolderError: If another process still holds it, or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")
    except OSError as error:
        raise RunFolderError(
            f"The run folder {path.parent} cannot be written ({error.strerror or error}); make it "
            "writable."
        ) from error
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if time.monotonic() >= end:
                file.seek(0)
                holder = file.read().strip() or "another process"
                file.close()
                raise RunFolderError(
                    f"The run {path.parent} is in use by {holder}; wait for it to end, or stop it."
                ) from None
        time.sleep(_POLL_SECONDS)
    # Only for people: a full disk must not keep a run from being continued.
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
    return file


@contextlib.contextmanager
def hold(path: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock for a while; see `take`."""
    with take(path, patience):
        yield
