"""Whether a run may be continued: its new results must be comparable with those it has.

When a run begins it notes what its results depend on. When it is resumed all of that must be as it
was: the spec, the user's own files that the spec names, network and data, the evaluator, and what
the evaluator says about the dense network. Where the run happens and how long it is may change.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ... import __version__
from ..._registry import is_reference
from ...errors import RunFolderError
from ..engine.preparing import Prepared
from ..spec.model import SearchSpec
from .folder import RunFolder

__all__ = ["check_comparable", "note_identity", "with_known_precision"]

_NOTE = "identity.json"

# They decide where a run happens, how long it is and where its files are; what weights, images and
# the user's own files say is compared by content.
_FREE = (
    "name",
    "output",
    "cluster",
    "evaluations",
    "compare.concurrent",
    "task.weights",
    "task.data.root",
)

# Other processors and versions round differently, which may tip a few images over.
_TOLERANCE = 0.01

_KEY_MEANINGS = {
    "task": "the network's weights or its data have changed",
    "repair": "the repair of candidates has changed",
    "precision": "candidates would be evaluated in another precision",
    "evaluator": "prunetune's evaluator or a measure has changed since",
}


def note_identity(folder: RunFolder, spec: SearchSpec, prepared: Prepared) -> None:
    """Note what a new run's results depend on.

    Raises:
        RunFolderError: If it cannot be written.
    """
    folder.write_json(_NOTE, _identity(spec, prepared))


def with_known_precision(folder: RunFolder, spec: SearchSpec) -> SearchSpec:
    """The spec with the precision that was chosen when the run began, on whatever machine."""
    if spec.precision != "auto" or not (folder.path / _NOTE).exists():
        return spec
    chosen = folder.read_json(_NOTE)["key"]["precision"]
    return SearchSpec.model_validate({**spec.to_dict(), "precision": chosen})


def check_comparable(folder: RunFolder, spec: SearchSpec, prepared: Prepared) -> None:
    """Refuse to continue a run whose new results could not be compared with those it has.

    Args:
        folder: The run.
        spec: Its spec as it is now, before `with_known_precision`.
        prepared: What would evaluate candidates now.

    Raises:
        RunFolderError: If anything that its results depend on has changed; says what.
    """
    if not (folder.path / _NOTE).exists():
        # The run was interrupted before its first evaluation.
        note_identity(folder, spec, prepared)
        return
    before, now = folder.read_json(_NOTE), _identity(spec, prepared)
    # What a newer prunetune adds to a spec with its defaults nobody has changed.
    written = tuple(key for key, _ in _leaves(_without_folders(folder.read_spec())))
    now["spec"] = {
        key: value
        for key, value in now["spec"].items()
        if key in before["spec"] or f"{key}.".startswith(tuple(f"{each}." for each in written))
    }
    reason = _difference(before, now)
    if reason is not None:
        raise RunFolderError(
            f"The run {folder.path} cannot be continued, because {reason} and its results would "
            "not be comparable; undo that, or start a new run."
        )


def _identity(spec: SearchSpec, prepared: Prepared) -> dict[str, Any]:
    values = _without_folders(spec.to_dict())
    files = {location for name in _texts(spec.to_dict()) if (location := _file(name)) is not None}
    return {
        "prunetune": __version__,
        "spec": {key: value for key, value in _leaves(values) if not _is_free(key)},
        "files": {file.name: _digest(file) for file in sorted(files)},
        "key": asdict(prepared.record_key),
        "dense": {k: _plain(v) for k, v in prepared.evaluator.dense.measures.items()},
    }


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    for key in sorted({*before["spec"], *now["spec"]}):
        old, new = before["spec"].get(key), now["spec"].get(key)
        if old != new:
            return f"{key} in its spec.yaml was {old!r} and is {new!r} now"
    for file, digest in before["files"].items():
        if now["files"].get(file) != digest:
            return f"the file {file} has changed"
    for part, meaning in _KEY_MEANINGS.items():
        if before["key"][part] != now["key"][part]:
            return meaning
    for measure, old in before["dense"].items():
        new = now["dense"].get(measure)
        if old is None or new is None:
            continue
        if abs(new - old) > _TOLERANCE * max(abs(old), abs(new)):
            return (
                f"the dense network's {measure} was {old:.6g} and is {new:.6g} with the packages "
                "and hardware of today"
            )
    return None


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{key}.{index}")
    else:
        yield key, value


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in _FREE)


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


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
