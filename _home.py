"""A home for processes that have none: containers and jobs whose user has no entry and no folder.

Ray looks for the home folder when it is imported and writes its token there, matplotlib its
settings, and we our cache. A user id without an entry in the password file, or ``HOME=/`` as
container engines set it, must not end in their tracebacks.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

__all__ = ["private_folder", "provide_home", "writable"]

_MATPLOTLIB = "MPLCONFIGDIR"


def provide_home() -> None:
    """Give this process and those that it starts a home folder where they have none.

    A home that is there stays, even one that cannot be written: what is in it may be needed.
    """
    home = _home()
    if home is None:
        os.environ["HOME"] = str(private_folder())
    elif not writable(home):
        os.environ.setdefault(_MATPLOTLIB, str(private_folder() / "matplotlib"))


def private_folder() -> Path:
    """A folder in the temporary one that only this user can read and write; made if missing."""
    folder = Path(tempfile.gettempdir()) / f"prunetune-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # Anyone may have made it before us, or a link of this name.
        status = folder.lstat()
        if (
            stat.S_ISDIR(status.st_mode)
            and status.st_uid == os.getuid()
            and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        ):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="prunetune-"))


def writable(path: Path) -> bool:
    """Whether a folder can be written, or made where it does not exist."""
    for folder in (path, *path.parents):
        if folder.exists():
            return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    return False


def _home() -> Path | None:
    if not os.environ.get("HOME", "unset"):
        # Python would take an empty one for the root folder.
        del os.environ["HOME"]
    try:
        home = Path.home()
    except (RuntimeError, KeyError):
        return None
    return home if home.is_absolute() and home.is_dir() else None
