"""Whose run it is: one that this user began here is continued unasked, any other only on demand.

To continue a run is to run code: the files and modules that its spec names, and the pickles in the
checkpoints of its agents. A run that somebody else sends must not do that unasked. So this machine
remembers, in the user's cache, the folders of the runs that were begun here, each with the mark
that its run bears. A folder that was moved, copied or unpacked is not remembered: its user says
once that it is to be trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..._references import is_reference
from ...errors import RunFolderError
from ...models.cache import cache_folder
from .files import write_durably
from .folder import MARKER, RunFolder

__all__ = ["check_trusted", "remember"]

_MARK = "id"
# Parts of a spec in which nothing is named that is run.
_NAMELESS = ("name", "output", "cluster")
_MOST_NAMED = 5


def remember(folder: RunFolder) -> None:
    """Note that a run is the user's own; without a cache that can be written, nothing is noted.

    Raises:
        RunFolderError: If the run's marker cannot be read or written.
    """
    marker = folder.read_json(MARKER)
    if not isinstance(marker.get(_MARK), str):
        marker = {**marker, _MARK: uuid.uuid4().hex}
        folder.write_json(MARKER, marker)
    note = _note(folder)
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(note, marker[_MARK].encode())


def check_trusted(folder: RunFolder, spec: Mapping[str, Any], trust: bool) -> None:
    """Refuse to continue a run that was not begun here by this user, unless they trust it.

    Args:
        folder: The run.
        spec: What its ``spec.yaml`` says, of which nothing has been imported.
        trust: Whether the user trusts it; it is remembered then.

    Raises:
        RunFolderError: If it is neither remembered nor trusted; says what would be run.
    """
    if trust:
        remember(folder)
    elif not _is_remembered(folder):
        parts = {key: value for key, value in spec.items() if key not in _NAMELESS}
        named = list(dict.fromkeys(_references(parts)))
        what = ", ".join(named[:_MOST_NAMED]) + (", ..." if len(named) > _MOST_NAMED else "")
        raise RunFolderError(
            f"The run {folder.path} was not begun here by you: it was moved, copied, or made by "
            f"somebody else. To continue it runs code: {what + ' and ' if what else ''}the pickles "
            "in its checkpoints. If you trust it, add --trust (from Python: trust=True)."
        )


def _is_remembered(folder: RunFolder) -> bool:
    note = _note(folder)
    try:
        # A cache may be shared; what others noted there does not count.
        return note.stat().st_uid == os.getuid() and note.read_text() == (
            folder.read_json(MARKER).get(_MARK)
        )
    except (OSError, ValueError):
        return False


def _note(folder: RunFolder) -> Path:
    digest = hashlib.sha256(os.fsencode(os.path.realpath(folder.path))).hexdigest()
    return cache_folder() / "begun" / digest[:32]


def _references(value: Any) -> Iterator[str]:
    """Everything in a spec that reads like code of the user's own."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _references(name)
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
    elif isinstance(value, str) and is_reference(value):
        yield value
