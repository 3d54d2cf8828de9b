"""What a job takes along: the installed package and the user's files, measured and zipped."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ClusterError

__all__ = ["MAX_BYTES", "ShippedPath", "check_size", "fingerprint", "ship"]

# What a Ray head takes in one request (DASHBOARD_CLIENT_MAX_SIZE of Ray 2.60).
MAX_BYTES = 100 * 1024**2

# A zip of the same files must have the same bytes, because Ray names an upload by their hash and
# does not send it twice. This is the earliest date that a zip can hold.
_DATE = (1980, 1, 1, 0, 0, 0)

_PACKAGE = "prunetune"
_LARGEST_SHOWN = 3


@dataclass(frozen=True)
class ShippedPath:
    """A file or folder of the user's that a job needs.

    Attributes:
        label: As the user wrote it, for messages.
        source: Where it is here.
        name: Where it is in the job's working directory, with ``/`` between its parts.
    """

    label: str
    source: Path
    name: str

    def files(self) -> Iterator[tuple[str, Path]]:
        """Name in the job and source of every file, in a fixed order.

        Raises:
            ClusterError: If it is missing or cannot be read.
        """
        if not self.source.is_dir():
            if not self.source.is_file():
                raise ClusterError(f"The file {self.label!r} does not exist; check the path.")
            yield self.name, self.source
            return
        for folder, subfolders, names in os.walk(self.source, followlinks=True):
            subfolders[:] = sorted(name for name in subfolders if name != "__pycache__")
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file():
                    yield f"{self.name}/{path.relative_to(self.source).as_posix()}", path

    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(path.stat().st_size for _, path in self.files())


def check_size(paths: list[ShippedPath]) -> None:
    """Refuse files that are too large for Ray to take, before anything is sent.

    Raises:
        ClusterError: If a path is missing, or all together exceed `MAX_BYTES`; the message names
            the largest.
    """
    sizes = {path.label: path.size() for path in paths}
    total = sum(sizes.values())
    if total <= MAX_BYTES:
        return
    largest = sorted(sizes, key=lambda label: -sizes[label])[:_LARGEST_SHOWN]
    named = ", ".join(f"{label!r} ({_mib(sizes[label])})" for label in largest)
    raise ClusterError(
        f"The files of this job have {_mib(total)}, and Ray takes {_mib(MAX_BYTES)}; the largest "
        f"are {named}: put them where every node sees them, and name them by that absolute path."
    )


def fingerprint(paths: list[ShippedPath]) -> str:
    """Return the SHA-256 of all names and contents."""
    digest = hashlib.sha256()
    for name, source in sorted(_all_files(paths).items()):
        digest.update(f"{name}\0{source.stat().st_size}\0".encode())
        with source.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def ship(target: Path, paths: list[ShippedPath], texts: Mapping[str, str]) -> None:
    """Zip a job's working directory: this package, the user's files, and texts made for the job.

    Args:
        target: The zip to write.
        paths: The user's files.
        texts: Content by name.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in sorted({**_package_files(), **_all_files(paths)}.items()):
            _add(archive, name, source.read_bytes())
        for name, text in sorted(texts.items()):
            _add(archive, name, text.encode())


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)


def _all_files(paths: list[ShippedPath]) -> dict[str, Path]:
    return {name: source for path in paths for name, source in path.files()}


def _package_files() -> dict[str, Path]:
    """The files of this package, wherever and however it is installed.

    In a checkout its root is the package, where tests and documents are beside the modules; only
    folders with an ``__init__.py`` belong to it.
    """
    root = Path(__file__).resolve().parents[1]
    modules = {path for path in root.iterdir() if path.suffix == ".py" or path.name == "py.typed"}
    for folder in (path.parent for path in root.glob("*/__init__.py")):
        modules.update(path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {
        f"{_PACKAGE}/{path.relative_to(root).as_posix()}": path
        for path in modules
        if path.is_file()
    }


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB"
