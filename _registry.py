"""Names in specs: ours by registry, the user's own as ``module:Name`` or ``file.py:Name``.

Objects of a Python session are named ``live:Name@DIGEST``; see ``_live``.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ._live import is_live, live_name, live_object
from .errors import PluginError, UnknownNameError

T = TypeVar("T")


def is_reference(name: str) -> bool:
    """Whether ``name`` points at the user's own object rather than at one of ours."""
    return ":" in name


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause suggesting the nearest known name, or listing all when nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(names)}."


def pick(kind: str, name: str, known: Mapping[str, T]) -> T:
    """Look ``name`` up among ``known``.

    Args:
        kind: What is looked up, for the message ("reward", "model", ...).
        name: The name as the user wrote it.
        known: Everything it may be.

    Raises:
        UnknownNameError: If there is no such name; the message suggests the nearest.
    """
    try:
        return known[name]
    except KeyError:
        raise UnknownNameError(f"Unknown {kind} {name!r}: {nearest(name, known)}") from None


def resolve(reference: str, kind: str) -> Any:
    """Import the user's own object.

    Args:
        reference: ``module:Name``, ``path/to/file.py:Name`` or ``live:Name@DIGEST``.
        kind: What it is meant to be, for the message ("reward", "model", ...).

    Raises:
        PluginError: If the file or module cannot be imported or has no such name, or the object
            is one of another Python session.
    """
    if is_live(reference):
        return _live(reference, kind)
    location, _, attribute = reference.rpartition(":")
    try:
        module = (
            _module_from_file(Path(location))
            if location.endswith(".py")
            else importlib.import_module(location)
        )
    except FileNotFoundError:
        raise PluginError(
            f"The {kind} {reference!r} names the file {location!r}, which does not exist."
        ) from None
    except Exception as error:
        raise PluginError(
            f"The {kind} {reference!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise PluginError(
            f"The {kind} {reference!r}: {location} has no {attribute!r}; "
            f"{nearest(attribute, public)}"
        ) from None


def _live(reference: str, kind: str) -> Any:
    try:
        return live_object(reference)
    except KeyError:
        raise PluginError(
            f"The {kind} {live_name(reference)!r} ({reference}) is an object of the Python session "
            "that made it, and not a file; give the object again, for example with "
            "prunetune.resume(RUN, task=TASK, objects=[...])."
        ) from None
    except Exception as error:
        raise PluginError(
            f"The {kind} {live_name(reference)!r} cannot be rebuilt in this process: "
            f"{type(error).__name__}: {error}"
        ) from error


def _module_from_file(path: Path) -> ModuleType:
    resolved = path.expanduser().resolve()
    if not resolved.is_file():
        raise FileNotFoundError(path)
    # The name is a function of the path so that objects from the file pickle between processes
    # that both resolved it, and two files of one name do not shadow each other.
    digest = hashlib.sha256(str(resolved).encode()).hexdigest()[:12]
    name = f"_prunetune_user_{resolved.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, resolved)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
