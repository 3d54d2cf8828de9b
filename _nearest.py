"""A name among those that are known, or a sentence that suggests the nearest of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from .errors import UnknownNameError

__all__ = ["nearest", "pick"]

T = TypeVar("T")


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
