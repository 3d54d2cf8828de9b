"""May this run continue? The one answer: its new results must be comparable with those it has.

When a run begins it notes what its results depend on. When it is continued (by ``resume``, by
``--resume``, by a job that takes a run over, or to fine-tune it) all of that must be as it was: the
spec, the user's own files that the spec names and what those import, network and images part by
part, the evaluator, and what the evaluator says about the dense network. Where the run happens and
how long it is may change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ... import __version__
from ..._live import is_live
from ..._references import is_reference
from ..._sources import source_digests
from ...errors import RunFolderError
from ...models.identity import TaskIdentity, changed_files
from ..spec.model import SearchSpec
from .folder import RunFolder
from .machine import describe_environment
from .record import RecordKey

__all__ = [
    "check_comparable",
    "check_known",
    "check_same_spec",
    "note_identity",
    "with_known_precision",
]

_NOTE = "identity.json"

# What of a spec may change while a run goes on, and why. Everything else may not.
_MAY_CHANGE = (
    "name",  # is only what people call it
    "output",  # a run may be moved
    "cluster",  # says where candidates are evaluated, not how
    "evaluations",  # says how long a search is; a longer one goes on from where it ended
    "compare.concurrent",  # says how many searches take place at a time
    "task.weights",  # says where they are; what they hold is in the digest of the task
    "task.data.root",  # the same
)

# Other processors and versions round differently, which may tip a few images over.
_TOLERANCE = 0.01

_KEY_MEANINGS = {
    "task": "the network or its images have changed",
    "repair": "the repair of candidates has changed",
    "precision": "candidates would be evaluated in another precision",
    "evaluator": "prunetune's evaluator or a measure has changed since",
}


def note_identity(
    folder: RunFolder,
    spec: SearchSpec,
    task: TaskIdentity,
    key: RecordKey,
    dense: Mapping[str, float],
) -> None:
    """Note what a run's results depend on.

    Args:
        folder: The run.
        spec: Its spec, before `with_known_precision`.
        task: What its task is.
        key: What its evaluations depend on.
        dense: Measures of the dense network.

    Raises:
        RunFolderError: If it cannot be written.
    """
    folder.write_json(_NOTE, _identity(spec, task, key, dense))


def with_known_precision(folder: RunFolder, spec: SearchSpec) -> SearchSpec:
    """The spec with the precision that was chosen when the run began, on whatever machine."""
    if spec.precision != "auto" or not (folder.path / _NOTE).exists():
        return spec
    chosen = folder.read_json(_NOTE)["key"]["precision"]
    return SearchSpec.model_validate({**spec.to_dict(), "precision": chosen})


def check_same_spec(folder: RunFolder, spec: SearchSpec) -> None:
    """Refuse to continue a run by a spec that is not its own, before anything is loaded.

    Args:
        folder: The run.
        spec: What the user asks for now.

    Raises:
        RunFolderError: If they differ in what its results depend on; says in what.
    """
    begun = folder.read_spec()
    for key, old, new in _spec_differences(_decisive(begun), _decisive(spec.to_dict()), begun):
        raise RunFolderError(
            f"The run {folder.path} cannot be continued by this spec: its {key} is {old!r}, this "
            f"spec's is {new!r}; choose another output, or continue the run as it is with "
            f"`prunetune resume {folder.path}`."
        )


def check_known(folder: RunFolder, spec: SearchSpec) -> None:
    """Refuse what can be told before anything is loaded.

    Args:
        folder: The run.
        spec: Its spec as it is now.

    Raises:
        RunFolderError: If an earlier version began the run, which noted less, or a file of the
            user's own has changed since.
    """
    if not (folder.path / _NOTE).exists():
        return
    note = folder.read_json(_NOTE)
    try:
        TaskIdentity.model_validate(note.get("task"))
    except ValidationError:
        raise RunFolderError(
            f"The run {folder.path} was begun by an earlier prunetune ({note.get('prunetune')}), "
            "whose evaluations are not comparable with those of this version: show it with "
            "`prunetune report` and use its networks as they are; to search on, go on with that "
            "version or start a new run."
        ) from None
    if changed := changed_files(note["files"], _files(spec)):
        raise _incomparable(folder, " and ".join(changed))


def check_comparable(
    folder: RunFolder,
    spec: SearchSpec,
    task: TaskIdentity,
    key: RecordKey,
    dense: Mapping[str, float],
) -> None:
    """Refuse to continue a run whose new results could not be compared with those it has.

    A run that was interrupted before it noted anything is noted now.

    Args:
        folder: The run.
        spec: Its spec as it is now, before `with_known_precision`.
        task: What its task is now.
        key: What evaluations would depend on now.
        dense: Measures of the dense network now.

    Raises:
        RunFolderError: If anything that its results depend on has changed; says what.
    """
    if not (folder.path / _NOTE).exists():
        note_identity(folder, spec, task, key, dense)
        return
    check_known(folder, spec)
    before, now = folder.read_json(_NOTE), _identity(spec, task, key, dense)
    reason = _difference(before, now, folder.read_spec())
    if reason is not None:
        raise _incomparable(folder, f"{reason}{_other_machine(folder)}")


def _incomparable(folder: RunFolder, reason: str) -> RunFolderError:
    return RunFolderError(
        f"The run {folder.path} cannot be continued, because {reason}, so that its results would "
        "not be comparable; undo that, or start a new run."
    )


def _files(spec: SearchSpec) -> dict[str, str | None]:
    """Digests of the user's own files that a spec names, and of what they import."""
    names = _texts(spec.to_dict())
    return source_digests(name for name in names if is_reference(name) and not is_live(name))


def _identity(
    spec: SearchSpec, task: TaskIdentity, key: RecordKey, dense: Mapping[str, float]
) -> dict[str, Any]:
    values = spec.to_dict()
    return {
        "prunetune": __version__,
        "spec": _decisive(values),
        "files": _files(spec),
        "task": task.model_dump(mode="json"),
        "key": asdict(key),
        "dense": {measure: _plain(value) for measure, value in dense.items()},
    }


def _decisive(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What of a spec's values results depend on, by dotted key."""
    leaves = _leaves(_without_folders(dict(spec)))
    return {key: value for key, value in leaves if not _may_change(key)}


def _spec_differences(
    before: Mapping[str, Any], now: Mapping[str, Any], written: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """What differs between two specs: dotted key, value before, value now.

    Args:
        before: What was decisive when the run began, by dotted key.
        now: What is now.
        written: What the run's ``spec.yaml`` holds. What it lacks is new in prunetune, and has its
            default: nobody has changed it.
    """
    known = tuple(f"{key}." for key, _ in _leaves(_without_folders(dict(written))))
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if old != new and (key in before or f"{key}.".startswith(known)):
            yield key, old, new


def _difference(
    before: Mapping[str, Any], now: Mapping[str, Any], written: Mapping[str, Any]
) -> str | None:
    """The first difference between two identities, in words."""
    for key, old, new in _spec_differences(before["spec"], now["spec"], written):
        return f"{key} in its spec.yaml was {old!r} and is {new!r} now"
    task = TaskIdentity.model_validate(now["task"])
    if reasons := task.differences(TaskIdentity.model_validate(before["task"])):
        return " and ".join(reasons)
    for part, meaning in _KEY_MEANINGS.items():
        if before["key"][part] != now["key"][part]:
            return meaning
    for measure, old in before["dense"].items():
        new = now["dense"].get(measure)
        if old is None or new is None:
            continue
        if abs(new - old) > _TOLERANCE * max(abs(old), abs(new)):
            return f"the dense network's {measure} was {old:.6g} and is {new:.6g}"
    return None


def _other_machine(folder: RunFolder) -> str:
    """What else is different, which may be why; in brackets, empty where nothing is."""
    try:
        before = folder.read_environment()
    except RunFolderError:
        return ""
    now = describe_environment()
    changed = [
        f"{name} was {old} and is {now['packages'][name]}"
        for name, old in before.get("packages", {}).items()
        if name in now["packages"] and now["packages"][name] != old
    ]
    if before.get("cpu") != now["cpu"]:
        changed.append(f"the processor was {before.get('cpu')} and is {now['cpu']}")
    return f" (besides, {', '.join(changed)})" if changed else ""


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{key}.{index}")
    else:
        yield key, value


def _may_change(key: str) -> bool:
    return f"{key}.".startswith(tuple(f"{each}." for each in _MAY_CHANGE))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


def _file(name: str) -> Path | None:
    location = Path(name.rpartition(":")[0])
    return location if is_reference(name) and location.suffix == ".py" else None


def _without_folders(value: Any) -> Any:
    """The same values, but ``folder/file.py:Name`` as ``file.py:Name``: a run may be moved."""
    if isinstance(value, dict):
        return {_without_folders(name): _without_folders(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    file = _file(value) if isinstance(value, str) else None
    return value if file is None else f"{file.name}:{value.rpartition(':')[2]}"


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
