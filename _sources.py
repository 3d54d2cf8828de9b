"""The user's own code behind a name in a spec: the file it names, and all that this file imports.

What a name does is decided by its file and by the modules that the file imports, and those import,
as far as they are the user's: the standard library, installed packages and this one say a version
instead. Imports are read from the source, not from what a process happens to have imported, so
that every process finds the same files.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

__all__ = [
    "SourceFile",
    "code_digest",
    "imported_files",
    "is_users_file",
    "make_importable",
    "shadowed_import",
    "source_digests",
]

_MAIN = "__main__"
_PACKAGE = __name__.partition(".")[0]
_INSTALLED = {"site-packages", "dist-packages"}
_LOADERS: Any = ((SourceFileLoader, SOURCE_SUFFIXES), (ExtensionFileLoader, EXTENSION_SUFFIXES))
_IMPORT_CALLS = {"import_module", "__import__"}


@dataclass(frozen=True)
class SourceFile:
    """One file of the user's own code.

    Attributes:
        label: Its name for messages, wherever it lies: ``net.py``, or ``pkg/net.py`` of a package.
        path: Where it is.
        package: The package that relative imports in it start from; empty when there is none.
    """

    label: str
    path: Path
    package: str


def imported_files(reference: str) -> tuple[SourceFile, ...]:
    """The user's files behind a name, those that they import included, each once.

    Args:
        reference: ``path/to/file.py:Name`` or ``module:Name``. Names of installed packages have no
            files of the user's.

    Returns:
        In the order in which they are found, the named one first; it may not exist.
    """
    location = reference.rpartition(":")[0]
    if location.endswith(".py"):
        path = Path(location).expanduser().resolve()
        return _closure([SourceFile(path.name, path, "")], [path.parent])
    return _closure(_find(location, [Path.cwd()]), [Path.cwd()])


def source_digests(references: Iterable[str]) -> dict[str, str | None]:
    """SHA-256 of all files behind some names, by label; None for a file that does not exist."""
    contents: dict[str, set[str]] = {}
    for file in {file for each in references for file in imported_files(each)}:
        there = file.path.is_file()
        digest = hashlib.sha256(file.path.read_bytes()).hexdigest() if there else ""
        contents.setdefault(file.label, set()).add(digest)
    return {label: _joined(sorted(found)) for label, found in sorted(contents.items())}


def code_digest(kind: Any) -> str:
    """SHA-256 of a class or function of the user's and of all that it uses of the user's own code.

    A module counts as a whole, with what it imports. Of a script or notebook, which changes while
    its objects stay what they are, only the classes and functions count that are used by name.

    Returns:
        Hexadecimal digits; those of nothing for what an installed package defines.
    """
    facts = json.dumps(_code(kind, set()), sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()


def make_importable(folder: Path) -> None:
    """Let modules in a folder be imported, as Python does with the folder of a script.

    They come after the standard library, which they must not replace, and before installed
    packages.
    """
    if str(folder) in sys.path or (folder == Path.cwd() and "" in sys.path):
        return
    library = Path(sysconfig.get_path("stdlib"))
    after = [i + 1 for i, entry in enumerate(sys.path) if _is_below(Path(entry), library)]
    sys.path.insert(max(after, default=0), str(folder))


def shadowed_import(file: Path) -> tuple[str, Path] | None:
    """A module that a file imports from its own folder while Python has another of that name.

    Returns:
        The module's name and the file of the other one; None when there is no such module.
    """
    for name in _imports(file, ""):
        top = name.partition(".")[0]
        other = getattr(sys.modules.get(top), "__file__", None)
        own = [file.parent / f"{top}.py", file.parent / top / "__init__.py"]
        beside = [path.resolve() for path in own if path.is_file()]
        if other and beside and top not in sys.stdlib_module_names:
            loaded = Path(other).resolve()
            if loaded not in beside and is_users_file(loaded):
                return top, loaded
    return None


def is_users_file(path: Path) -> bool:
    """Whether a file belongs to no installed package."""
    return not _INSTALLED & set(path.parts)


def _code(kind: Any, seen: set[int]) -> dict[str, str | None]:
    """Digests by file or, of what a script or notebook defines, by name."""
    name = getattr(kind, "__module__", None) or ""
    if name != _MAIN:
        return source_digests([f"{name}:"])
    if id(kind) in seen:
        return {}
    seen.add(id(kind))
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        digest = hashlib.sha256(cloudpickle.dumps(kind)).hexdigest()
        return {kind.__qualname__: digest}
    found: dict[str, str | None] = {kind.__qualname__: hashlib.sha256(source.encode()).hexdigest()}
    globals_ = vars(sys.modules[_MAIN])
    for used in sorted(set(re.findall(r"\w+", source)) & set(globals_)):
        value = globals_[used]
        if isinstance(value, ModuleType):
            found |= source_digests([f"{value.__name__}:"])
        elif inspect.isclass(value) or inspect.isfunction(value):
            found |= _code(value, seen)
    return found


def _is_below(entry: Path, library: Path) -> bool:
    return is_users_file(entry) and library in (entry, *entry.parents)


def _closure(roots: Sequence[SourceFile], folders: Sequence[Path]) -> tuple[SourceFile, ...]:
    found = {root.path: root for root in roots}
    waiting = list(roots)
    while waiting:
        file = waiting.pop(0)
        for name in _imports(file.path, file.package):
            for other in _find(name, folders):
                if other.path not in found:
                    found[other.path] = other
                    waiting.append(other)
    return tuple(found.values())


def _find(name: str, folders: Sequence[Path]) -> list[SourceFile]:
    """The user's files that ``import name`` runs: those of its packages, and its own."""
    parts = name.split(".")
    if parts[0] in sys.stdlib_module_names or parts[0] == _PACKAGE or not parts[0]:
        return []
    files: list[SourceFile] = []
    locations: Sequence[str] | None = None
    for depth, part in enumerate(parts):
        whole = ".".join(parts[: depth + 1])
        spec = _top(part, folders) if depth == 0 else _inner(whole, locations or ())
        if spec is None:
            break
        locations = spec.submodule_search_locations
        # A folder without an __init__.py is a package without a file.
        if spec.origin is not None and spec.has_location:
            path = Path(spec.origin).resolve()
            if not is_users_file(path):
                break
            package = whole if locations is not None else ".".join(parts[:depth])
            folder = parts[:depth] if locations is None else parts[: depth + 1]
            files.append(SourceFile("/".join([*folder, path.name]), path, package))
        if locations is None:
            break
    return files


def _top(name: str, folders: Sequence[Path]) -> ModuleSpec | None:
    """Where Python finds a module, or would in a process that has ``folders`` in its path."""
    spec = _in_path(name) if name in sys.modules else None
    if spec is None:
        spec = _inner(name, list(map(str, folders)))
    if spec is None or spec.loader is None:
        # A folder without an __init__.py counts only where nothing else has the name.
        spec = _in_path(name) or spec
    return spec


def _in_path(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ValueError:
        # A module that something made up has no place.
        return None


def _inner(name: str, locations: Sequence[str]) -> ModuleSpec | None:
    """A module in one of several folders, without importing the packages that it is in."""
    packages: list[str] = []
    for location in locations:
        spec = FileFinder(location, *_LOADERS).find_spec(name)
        if spec is not None and spec.loader is not None:
            return spec
        packages += (spec and spec.submodule_search_locations) or []
    if not packages:
        return None
    together = ModuleSpec(name, None, is_package=True)
    together.submodule_search_locations = packages
    return together


def _imports(file: Path, package: str) -> list[str]:
    """Names of modules that a file may import, those that are none among them."""
    if file.suffix != ".py" or not file.is_file():
        return []
    stat = file.stat()
    return list(dict.fromkeys(_read_imports(file, package, stat.st_mtime_ns, stat.st_size)))


@lru_cache(maxsize=4096)
def _read_imports(file: Path, package: str, changed: int, size: int) -> tuple[str, ...]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        # Importing it says so in words.
        return ()
    return tuple(name for node in ast.walk(tree) for name in _named(node, package))


def _named(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        if base:
            yield base
            for alias in node.names:
                yield f"{base}.{alias.name}"
    elif isinstance(node, ast.Call) and node.args:
        called = getattr(node.func, "attr", getattr(node.func, "id", None))
        first = node.args[0]
        if called in _IMPORT_CALLS and isinstance(first, ast.Constant):
            if isinstance(first.value, str):
                yield first.value


def _joined(digests: list[str]) -> str | None:
    if len(digests) == 1:
        return digests[0] or None
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()
