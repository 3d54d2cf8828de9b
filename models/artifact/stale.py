"""Exports beside an artifact, which say whose weights they hold, and those that are out of date."""

from __future__ import annotations

import mmap
from pathlib import Path

__all__ = ["SUFFIXES", "export_mark", "stale_exports"]

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}

_MARK = "prunetune-weights:"


def export_mark(weights_sha256: str) -> str:
    """What an export holds somewhere, uncompressed."""
    return f"{_MARK}{weights_sha256}"


def stale_exports(folder: Path, weights_sha256: str) -> tuple[str, ...]:
    """Exports in a folder whose weights are others.

    Args:
        folder: The artifact.
        weights_sha256: Digest of the weights that it is going to have.

    Returns:
        Names of files that hold our mark and another digest, and of unmarked ones that have the
        name an export has by default: early versions did not mark them.
    """
    current = export_mark(weights_sha256).encode()
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in SUFFIXES.values() or path.is_symlink() or not path.is_file():
            continue
        ours = _holds(path, _MARK.encode()) or path.stem == "model"
        if ours and not _holds(path, current):
            found.append(path.name)
    return tuple(found)


def _holds(path: Path, mark: bytes) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(mark) >= 0
