"""From the arguments of a function to the spec that a file would say the same with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import SpecError
from ..spec.model import SearchSpec
from ..spec.paths import anchor_paths
from ..spec.reading import read_spec
from .objects import named
from .task import Task

__all__ = ["checked_spec", "spec_values"]

# Keys of a spec whose values may be classes and objects of the user's own.
_OWN = ("reward", "agent", "measures", "criterion")


def spec_values(
    task: Task,
    finetune: int | Mapping[str, Any] | None,
    cluster: str | Mapping[str, Any] | None,
    keys: Mapping[str, Any],
) -> dict[str, Any]:
    """The plain values of a spec of a task, to which budgets and the like are added.

    Args:
        task: What is pruned.
        finetune: Epochs, or the keys of ``finetune``; the default when None.
        cluster: Address, or the keys of ``cluster``; the default when None.
        keys: Any other keys of a spec.

    Raises:
        SpecError: If the task is something else.
    """
    if not isinstance(task, Task):
        raise SpecError(
            f"The task is a {type(task).__name__}; give prunetune.Task(network, train=..., "
            "test=...)."
        )
    values: dict[str, Any] = {key: named(v) if key in _OWN else v for key, v in keys.items()}
    values.setdefault("name", task.name.rpartition(":")[2])
    values["task"] = task.spec.model_dump(mode="json")
    if finetune is not None:
        values["finetune"] = {"epochs": finetune} if isinstance(finetune, int) else dict(finetune)
    if cluster is not None:
        values["cluster"] = {"address": cluster} if isinstance(cluster, str) else dict(cluster)
    return values


def checked_spec(values: Mapping[str, Any], source: str) -> SearchSpec:
    """The spec of these values, of which relative paths are below the working folder.

    Args:
        values: As `spec_values` makes them.
        source: The function that they were given to, for messages.

    Raises:
        PruneTuneError: If anything in it is wrong; says what to change.
    """
    spec = read_spec(values, f"the arguments of {source}", check=False)
    return read_spec(anchor_paths(spec.to_dict(), Path.cwd()))
