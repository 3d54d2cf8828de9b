"""The user's own objects by reference: ``module:Name``, ``file.py:Name`` or ``live:Name@DIGEST``.

The last one is an object of a Python session; see ``_live``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from ._live import is_live, live_name, live_object, users_modules
from ._nearest import nearest
from ._sources import make_importable, shadowed_import
from .errors import PluginError

__all__ = ["imported", "imported_anew", "is_reference", "only_ours", "resolve", "user_modules"]

_USER_PREFIX = "_prunetune_user_"

_ONLY_OURS: ContextVar[bool] = ContextVar("only_ours", default=False)


def is_reference(name: str) -> bool:
    """Whether ``name`` points at the user's own object rather than at one of ours."""
    return ":" in name


def resolve(reference: str, kind: str) -> Any:
    """Import the user's own object.

    Args:
        reference: ``module:Name``, ``path/to/file.py:Name`` or ``live:Name@DIGEST``.
        kind: What it is meant to be, for the message ("reward", "model", ...).

    Raises:
        PluginError: If the file or module cannot be imported or has no such name, the object is
            one of another Python session, or only ours may be used (`only_ours`).
    """
    if _ONLY_OURS.get():
        raise PluginError(f"The {kind} {reference!r} is not one of ours, and is not run here.")
    return _live(reference, kind) if is_live(reference) else imported(reference, kind)


@contextlib.contextmanager
def only_ours() -> Iterator[None]:
    """Nothing that a spec names is imported inside but what is ours.

    For reading what somebody else wrote: whatever way leads to their code, it is closed.
    """
    before = _ONLY_OURS.set(True)
    try:
        yield
    finally:
        _ONLY_OURS.reset(before)


def imported(reference: str, kind: str) -> Any:
    """What a file or module defines, ours or the user's.

    Args:
        reference: ``module:Name`` or ``path/to/file.py:Name``.
        kind: What it is meant to be, for the message.

    Raises:
        PluginError: If the file or module cannot be imported or has no such name.
    """
    location, _, attribute = reference.rpartition(":")
    try:
        module = (
            _module_from_file(Path(location))
            if location.endswith(".py")
            else _module_by_name(location)
        )
    except FileNotFoundError:
        raise PluginError(
            f"The {kind} {reference!r} names the file {location!r}, which does not exist."
        ) from None
    except (Exception, SystemExit) as error:
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


def user_modules() -> list[ModuleType]:
    """The user's own files that were imported in this process, and what lies beside them."""
    files = [module for name, module in sys.modules.items() if name.startswith(_USER_PREFIX)]
    folders = {Path(str(module.__file__)).parent for module in files}
    beside = [
        module
        for module in users_modules()
        if module not in files and folders & set(Path(str(module.__file__)).parents)
    ]
    return files + beside


@contextlib.contextmanager
def imported_anew() -> Iterator[None]:
    """Import the user's own modules again inside, as a new process would; outside they stay."""
    own = {id(module) for module in (*users_modules(), *user_modules())}
    before = {
        name: module
        for name, module in sys.modules.items()
        if id(module) in own and name != "__main__"
    }
    for name in before:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.modules.update(before)


def _module_by_name(name: str) -> ModuleType:
    # The command has the folder of its own script there, and not the one it was called in.
    make_importable(Path.cwd())
    return importlib.import_module(name)


def _module_from_file(path: Path) -> ModuleType:
    resolved = path.expanduser().resolve()
    if not resolved.is_file():
        raise FileNotFoundError(path)
    # The name is a function of the path so that objects from the file pickle between processes
    # that both resolved it, and two files of one name do not shadow each other.
    digest = hashlib.sha256(str(resolved).encode()).hexdigest()[:12]
    name = f"{_USER_PREFIX}{resolved.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, resolved)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")
    make_importable(resolved.parent)
    if (shadowed := shadowed_import(resolved)) is not None:
        raise ImportError(
            f"it imports {shadowed[0]} from its own folder, but {shadowed[1]} was imported by that "
            "name already; rename one of them"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
