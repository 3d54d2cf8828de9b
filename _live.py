"""Objects of a Python session that specs name: ``live:NAME@DIGEST``.

A spec is text, but what a notebook hands over (a network, a reward, an agent) is an object. It is
kept here under a reference that says its name and what it holds, and the spec says the reference.
Processes that need the object are sent a `LiveObjects`, which brings it along by value.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import cloudpickle

from ._sources import code_digest

__all__ = [
    "LiveObjects",
    "is_live",
    "keep_live",
    "live_name",
    "live_object",
    "live_references",
    "source_digest",
    "users_modules",
]

_PREFIX = "live:"
_DIGITS = 16

# What was kept or used in this process, and what was sent to it and has not been used yet.
_OBJECTS: dict[str, Any] = {}
_SENT: dict[str, bytes] = {}


def is_live(name: str) -> bool:
    """Whether a name in a spec stands for an object of a Python session."""
    return name.startswith(_PREFIX)


def live_name(reference: str) -> str:
    """The name inside a reference, for people: ``MyReward`` of ``live:MyReward@3f2a``."""
    return reference.removeprefix(_PREFIX).rpartition("@")[0]


def keep_live(value: Any, name: str, digest: str) -> str:
    """Keep an object in this process so that specs can name it.

    Args:
        value: The object.
        name: For people; characters that are awkward in paths become ``-``.
        digest: Hexadecimal digits that differ where objects behave differently.

    Returns:
        Its reference. Equal names and digests have equal references; the newest object counts.
    """
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "object"
    reference = f"{_PREFIX}{safe}@{digest[:_DIGITS]}"
    _OBJECTS[reference] = value
    return reference


def live_object(reference: str) -> Any:
    """The object that a reference names.

    Raises:
        KeyError: If this process neither kept nor was sent it.
    """
    if reference not in _OBJECTS:
        _OBJECTS[reference] = cloudpickle.loads(_SENT[reference])
        del _SENT[reference]
    return _OBJECTS[reference]


def live_references(value: Any) -> set[str]:
    """All references in plain values, such as those of a spec; keys of mappings included."""
    if isinstance(value, str):
        return {value} if is_live(value) else set()
    if isinstance(value, Mapping):
        return live_references([*value.keys(), *value.values()])
    if isinstance(value, list | tuple):
        return {reference for inner in value for reference in live_references(inner)}
    return set()


def source_digest(value: Any) -> str:
    """SHA-256 of what a class, function or object does: its code and, of an object, its state.

    All of the user's code that it uses counts, as `code_digest` finds it.
    """
    kind = value if inspect.isclass(value) or inspect.isroutine(value) else type(value)
    digest = hashlib.sha256(code_digest(kind).encode())
    # Classes of one file have the same code.
    digest.update(kind.__qualname__.encode())
    if kind is not value:
        digest.update(cloudpickle.dumps(vars(value) if hasattr(value, "__dict__") else value))
    return digest.hexdigest()


class LiveObjects:
    """Objects on their way to other processes, where unpickling this makes their names known.

    Args:
        references: Of objects that this process has.

    Raises:
        KeyError: If it lacks one of them.
    """

    def __init__(self, references: Iterable[str] = ()) -> None:
        self._pickled = {
            reference: _pickle(live_object(reference)) for reference in sorted(references)
        }

    def __len__(self) -> int:
        return len(self._pickled)

    def __reduce__(self) -> tuple[Any, tuple[dict[str, bytes]]]:
        return _receive, (self._pickled,)


def _receive(pickled: dict[str, bytes]) -> LiveObjects:
    _SENT.update({key: value for key, value in pickled.items() if key not in _OBJECTS})
    received = LiveObjects()
    received._pickled = pickled
    return received


def _pickle(value: Any) -> bytes:
    try:
        with _by_value(users_modules()):
            return bytes(cloudpickle.dumps(value))
    except Exception:
        # A module that holds something without a pickled form can only be imported over there.
        return bytes(cloudpickle.dumps(value))


def users_modules() -> list[ModuleType]:
    """Imported modules that belong to no installed package: other machines may not have them."""
    package = __name__.partition(".")[0]
    installed = {*importlib.metadata.packages_distributions(), *sys.stdlib_module_names, package}
    return [
        module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] not in installed
        and getattr(module, "__name__", None) == name
        and "-packages" not in (getattr(module, "__file__", None) or "-packages")
    ]


@contextlib.contextmanager
def _by_value(modules: Iterable[ModuleType]) -> Iterator[None]:
    """Let what these modules define be pickled whole instead of by its module's name."""
    registered = cloudpickle.list_registry_pickle_by_value()
    chosen = [module for module in modules if module.__name__ not in registered]
    for module in chosen:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in chosen:
            cloudpickle.unregister_pickle_by_value(module)
