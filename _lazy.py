"""Packages whose members are imported when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazily"]


def lazily(package: str, members: Mapping[str, str]) -> Callable[[str], Any]:
    """A ``__getattr__`` for a package that imports a member's module when it is asked for.

    A process that needs one light module of a package then does not pay for the heavy ones.

    Args:
        package: The package's ``__name__``.
        members: Module by member, relative to the package, such as ``.task``.
    """

    def get(name: str) -> Any:
        if name not in members:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(members[name], package), name)

    return get
