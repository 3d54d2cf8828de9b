"""A spec that can travel: the files it names go with it, and its paths lead to them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

import yaml

from ..._sources import imported_files
from ...cluster.shipping import ShippedPath, check_size, fingerprint
from ...cluster.storage import below
from .model import CompareSpec, SearchSpec
from .names import check_names
from .paths import folder_stem, map_paths
from .reading import read_spec_file

__all__ = ["PortableSpec", "portable_spec"]

Command = Literal["search", "compare"]

_FILES = "files"


@dataclass(frozen=True)
class PortableSpec:
    """A spec for another machine.

    Attributes:
        command: ``search`` or ``compare``.
        spec: Its relative paths start from the job's working directory; absolute ones, and those
            that begin with ``~``, are the cluster's own.
        paths: Files and folders that go with it.
        run: Name of the run. Equal specs and files have equal names, wherever they are submitted
            from.
    """

    command: Command
    spec: SearchSpec
    paths: list[ShippedPath]
    run: str

    @property
    def output(self) -> str:
        """Name or path of the run folder: what the spec says, or else the run's name."""
        return self.run if self.spec.output is None else self.spec.output.as_posix()

    def folder(self, root: str) -> str:
        """Where the run folder is on the cluster.

        Args:
            root: Where runs are kept when the spec names no storage.
        """
        storage = self.spec.cluster.storage or root
        return self.output if _is_elsewhere(self.output) else below(storage, self.output)

    def to_yaml(self) -> str:
        """The text of the spec's file."""
        return yaml.safe_dump(self.spec.to_dict(), sort_keys=False, allow_unicode=True)


def portable_spec(
    path: Path | str,
    overrides: Sequence[str] = (),
    include: Sequence[Path] = (),
    command: Command | None = None,
) -> PortableSpec:
    """Read a spec file and find what it needs on another machine.

    Args:
        path: The spec file. What it names by a relative path is on this machine, relative to it.
        overrides: As for ``load_spec``.
        include: More files and folders of the user's, relative to the working directory. They keep
            their place relative to the other files.
        command: ``search`` or ``compare``; when left out, a spec with a grid is a comparison.

    Raises:
        PruneTuneError: If the spec is wrong, a file is missing, or they are too large together.
    """
    spec = read_spec_file(path, overrides)
    # The user's own files may need packages that only the cluster has.
    check_names(spec, own=False)
    folder = Path(os.path.abspath(Path(path).expanduser())).parent
    sources: dict[str, Path] = {}

    def note(written: str) -> str:
        if not _is_elsewhere(written):
            sources[written] = Path(os.path.abspath(folder / written))
            sources.update(_beside(sources[written]))
        return written

    map_paths(spec.to_dict(), note)
    sources |= {str(each): Path(os.path.abspath(each.expanduser())) for each in include}
    names = _names(sources, folder)
    paths = [ShippedPath(label, source, names[label]) for label, source in sources.items()]
    check_size(paths)
    values = map_paths(spec.to_dict(), lambda written: names.get(written, written))
    # The cluster is the one that the job runs on.
    values["cluster"]["address"] = None
    if command is None:
        command = "search" if spec.compare == CompareSpec() else "compare"
    name = f"{folder_stem(spec.name)}-{_digest(command, values, paths)[:8]}"
    return PortableSpec(command, SearchSpec.model_validate(values), paths, name)


def _is_elsewhere(written: str) -> bool:
    return written.startswith("~") or PurePath(written).is_absolute()


def _beside(file: Path) -> dict[str, Path]:
    """What one of the user's own files imports from its folder and from below."""
    if file.suffix != ".py":
        return {}
    folder = file.resolve().parent
    imported = (each.path for each in imported_files(f"{file}:")[1:])
    inside = [file.parent / p.relative_to(folder) for p in imported if folder in p.parents]
    return {str(path): path for path in inside}


def _names(sources: dict[str, Path], folder: Path) -> dict[str, str]:
    """Names in the job: files that lie beside each other here do so there."""
    root = Path(os.path.commonpath([folder, *(source.parent for source in sources.values())]))
    return {
        label: f"{_FILES}/{source.relative_to(root).as_posix()}"
        for label, source in sources.items()
    }


def _digest(command: str, values: dict[str, Any], paths: list[ShippedPath]) -> str:
    """What makes two submissions the same run; how large the cluster is does not."""
    facts = {**values, "cluster": values["cluster"]["storage"]}
    text = json.dumps([command, facts], sort_keys=True)
    return hashlib.sha256(f"{text}{fingerprint(paths)}".encode()).hexdigest()
