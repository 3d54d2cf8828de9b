"""Where a run is written: its output, under the cluster's storage when the spec names one."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...cluster.mirror import Mirror
from ...cluster.storage import below, is_uri
from ...errors import RunFolderError, SpecError
from ...models.cache import cache_folder
from ..spec.model import SearchSpec
from ..spec.paths import next_name
from .folder import MARKER, names_in

__all__ = ["StoredRun", "holds_run", "opened_run", "stored"]


@dataclass(frozen=True)
class StoredRun:
    """Where a run is.

    Attributes:
        folder: On this machine; ``None`` leaves it to the run to choose.
        address: What users call it: a path or a URI.
    """

    folder: Path | None
    address: str | None


def holds_run(folder: Path) -> bool:
    """Whether there is a run in a folder, of whatever version and state."""
    return (folder / MARKER).is_file()


@contextlib.contextmanager
def stored(spec: SearchSpec, resume: bool) -> Iterator[StoredRun]:
    """Choose the folder of a run where its cluster keeps runs.

    Without ``cluster.storage`` it is the spec's output. With a path, the output is below it. With a
    URI, the run is written on this machine, continued from what the URI holds, and copied there
    while it grows.

    Args:
        spec: The spec.
        resume: Whether a run that is there is continued rather than refused.

    Yields:
        The folder.

    Raises:
        PruneTuneError: If the output does not fit the storage, or the storage cannot be used.
    """
    storage, output = spec.cluster.storage, spec.output
    if storage is None:
        folder = None if output is None else output.expanduser()
        yield StoredRun(folder, None if folder is None else str(folder))
    elif not is_uri(storage):
        root = Path(storage).expanduser().absolute()
        folder = root / (output or next_name(spec.name, names_in(root)))
        yield StoredRun(folder, str(folder))
    else:
        if output is not None and (output.is_absolute() or output.parts[:1] == ("~",)):
            raise SpecError(
                f"The output {output} is an absolute path, but the storage {storage!r} is a URI; "
                "give the run's name below it."
            )
        name = output or next_name(spec.name, Mirror(Path(), storage).names())
        uri = below(storage, str(name))
        if not resume and Mirror(Path(), uri).exists():
            raise RunFolderError(
                f"There is a run at {uri} already; continue it with `prunetune resume {uri}`, or "
                "choose another output."
            )
        with _mirrored(uri) as local:
            yield StoredRun(local, uri)


@contextlib.contextmanager
def opened_run(run: str) -> Iterator[Path]:
    """The folder of a run that exists, which for a URI is a copy on this machine.

    Args:
        run: A path or a URI. What is written to the copy reaches the URI.

    Raises:
        PruneTuneError: If there is no such run, or its storage cannot be used.
    """
    if not is_uri(run):
        yield Path(run)
        return
    if not Mirror(Path(), run).exists():
        raise RunFolderError(f"There is no run at {run}; check the URI.")
    with _mirrored(run) as local:
        yield local


@contextlib.contextmanager
def _mirrored(uri: str) -> Iterator[Path]:
    location = uri.partition("?")[0].rstrip("/")
    digest = hashlib.sha256(location.encode()).hexdigest()[:8]
    mirror = Mirror(cache_folder() / "runs" / digest / location.rpartition("/")[2], uri)
    mirror.fetch()
    with mirror:
        yield mirror.local
