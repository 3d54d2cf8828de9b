"""The paths that a resolved spec names, and the name that it gives to folders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..._references import is_reference

__all__ = ["anchor_paths", "folder_stem", "map_paths", "next_name"]

# File systems take 255 bytes; a number follows, and names of temporary files are longer still.
_LONGEST = 180


def folder_stem(name: str) -> str:
    """A spec's name without what is awkward in paths, and no longer than a folder's may be."""
    stem = re.sub(r"[^\w.-]+", "-", name).encode()[:_LONGEST].decode(errors="ignore")
    return stem.strip("-.") or "run"


def next_name(name: str, taken: Iterable[str]) -> str:
    """``NAME-NUMBER`` with the lowest number above all that are taken.

    Args:
        name: The spec's name; characters that are awkward in paths become ``-``.
        taken: Names of what is there.
    """
    stem = folder_stem(name)
    pattern = re.compile(re.escape(stem) + r"-(\d+)")
    numbers = [int(match.group(1)) for each in taken if (match := pattern.fullmatch(each))]
    return f"{stem}-{max(numbers, default=0) + 1}"


def map_paths(values: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Replace every path of a resolved spec, in place.

    Args:
        values: As ``SearchSpec.to_dict`` gives them.
        change: From a path as it is written to what replaces it.

    Returns:
        ``values``.
    """
    task = values["task"]
    data = task["data"]
    task["weights"] = _changed(task["weights"], change)
    data["root"] = _changed(data["root"], change)
    compare = values["compare"]
    named = [data, values["reward"], values["agent"], *values["measures"]]
    named += [*compare["rewards"], *compare["agents"]]
    task["model"] = _changed_reference(task["model"], change)
    if isinstance(values["criterion"], str):
        # Without parameters it is written as its name alone.
        values["criterion"] = _changed_reference(values["criterion"], change)
    else:
        named.append(values["criterion"])
    for one in named:
        one["name"] = _changed_reference(one["name"], change)
    for budgets in (values, *({"budgets": each} for each in compare["budgets"])):
        renamed = {_changed_reference(k, change): v for k, v in budgets["budgets"].items()}
        budgets["budgets"].clear()
        budgets["budgets"].update(renamed)
    return values


def anchor_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of a resolved spec absolute, in place; ``folder`` is what they start from."""
    return map_paths(values, lambda path: str(folder / Path(path).expanduser()))


def _changed(path: str | None, change: Callable[[str], str]) -> str | None:
    return None if path is None else change(path)


def _changed_reference(name: str, change: Callable[[str], str]) -> str:
    location, _, attribute = name.rpartition(":")
    if is_reference(name) and location.endswith(".py"):
        return f"{change(location)}:{attribute}"
    return name
