"""Reading a spec file: YAML, overrides, paths, and one clear sentence for every mistake."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..._nearest import nearest
from ...errors import SpecError
from .methods import with_method
from .model import BudgetSpec, CompareSpec, FinetuneSpec, SearchSpec
from .names import check_names
from .paths import anchor_paths
from .trials import comparison_trials
from .yaml_text import MOST_BYTES, yaml_values

__all__ = [
    "BudgetSpec",
    "CompareSpec",
    "FinetuneSpec",
    "SearchSpec",
    "load_spec",
    "override_values",
    "read_spec",
    "read_spec_file",
]

_Location = tuple[int | str, ...]


def load_spec(path: Path | str, overrides: Sequence[str] = (), check: bool = True) -> SearchSpec:
    """Read a spec file, make its paths absolute, and check what it names.

    Args:
        path: A YAML file. Relative paths in it (weights, data, the user's own files) are meant
            relative to its folder.
        overrides: ``key.sub=value`` each; values are YAML and replace what the file says.
        check: Whether names and their parameters are checked, for which the user's own files are
            imported.

    Raises:
        PruneTuneError: If anything in it is not what it should be, in one sentence.
    """
    spec = read_spec_file(path, overrides)
    folder = Path(path).expanduser().resolve().parent
    spec = SearchSpec.model_validate(anchor_paths(spec.to_dict(), folder))
    if check:
        check_names(spec)
    return spec


def read_spec_file(path: Path | str, overrides: Sequence[str] = ()) -> SearchSpec:
    """Read a spec file, leave its paths as they are written, and check no names; see `load_spec`.

    Raises:
        SpecError: If the file or an override is not what it should be, in one sentence.
    """
    file = Path(path).expanduser()
    try:
        if file.exists() and not file.is_file():
            raise SpecError(f"The spec {path} is not a file; give a YAML file.")
        if file.stat().st_size > MOST_BYTES:
            raise SpecError(f"The spec file {path} is too large for a spec; give a YAML file.")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"There is no spec file {path}; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"The spec file {path} cannot be read: {error}.") from error
    values = yaml_values(text, f"The spec file {path}")
    if not isinstance(values, dict):
        raise SpecError(f"The spec file {path} must hold keys and values, such as `budgets:`.")
    override_values(values, overrides)
    values.setdefault("name", file.stem)
    return read_spec(values, str(path), check=False)


def read_spec(
    values: Mapping[str, Any], source: str = "the spec", check: bool = True
) -> SearchSpec:
    """A spec from plain values.

    Args:
        values: As YAML gives them. Relative paths start from the working directory.
        source: Where they come from, for messages.
        check: Whether names and their parameters are checked, for which the user's own files are
            imported. The report of somebody else's run needs none of it.

    Raises:
        SpecError: If they do not describe a search, in one sentence.
        PruneTuneError: If a name or a parameter is wrong.
    """
    try:
        spec = SearchSpec.model_validate(with_method(values))
    except ValidationError as error:
        raise SpecError(f"In {source}, {_sentence(error)}") from None
    # A trial whose name cannot be a folder's is refused here.
    comparison_trials(spec)
    if check:
        check_names(spec)
    return spec


def override_values(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Replace values in place.

    Args:
        values: As YAML gives them.
        overrides: ``key.sub=value`` each; values are YAML.

    Raises:
        SpecError: If an override is not of that form.
    """
    for override in overrides:
        _override(values, override)


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise SpecError(f"The override {override!r} is not of the form key.sub=value.")
    value = yaml_values(text, f"The override {override!r}")
    target = values
    for part in path[:-1]:
        inner = target.get(part)
        if not isinstance(inner, dict):
            # `reward: accuracy` is short for a mapping with a name.
            inner = {"name": inner} if isinstance(inner, str) else {}
            target[part] = inner
        target = inner
    target[path[-1]] = value


def _sentence(error: ValidationError) -> str:
    """The first mistake; where alternatives all failed, what each of them wants."""
    mistakes = error.errors(include_url=False)
    # An unknown key is most often the cause of the others: a missing one, misspelt.
    mistakes.sort(key=lambda mistake: mistake["type"] != "extra_forbidden")
    location, known = _walk(mistakes[0]["loc"])
    # Of alternatives, the one that got furthest is what was meant: of a number or a list, the list.
    within = [each for each in mistakes if _walk(each["loc"])[0][: len(location)] == location]
    first = max(within, key=lambda mistake: len(_walk(mistake["loc"])[0]))
    location, known = _walk(first["loc"])
    key = ".".join(map(str, location)) or "the spec"
    if first["type"] == "extra_forbidden":
        return f"{key!r} is not a key; {nearest(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing; add it."
    if first["type"] == "model_type":
        return f"{key!r} must hold keys and values ({', '.join(known)}), not {first['input']!r}."
    messages = dict.fromkeys(
        _message(mistake) for mistake in mistakes if _walk(mistake["loc"])[0] == location
    )
    if first["type"] == "value_error":
        return f"{key!r} is wrong: {' or '.join(messages)}."
    return f"{key!r} is {first['input']!r}, but {' or '.join(messages)}."


def _message(mistake: Any) -> str:
    text: str = mistake["msg"]
    return text.removeprefix("Value error, ").replace("Input should", "it should").rstrip(".")


def _walk(location: _Location) -> tuple[_Location, list[str]]:
    """The keys a user wrote, without pydantic's names of alternatives, and the keys known there."""
    kept: list[int | str] = []
    annotation: Any = SearchSpec
    known: list[str] = []
    for part in location:
        fields = _fields(annotation)
        if fields:
            known = list(fields)
            kept.append(part)
            field = fields.get(str(part))
            annotation = field.annotation if field is not None else None
            continue
        inner = _container(annotation, part)
        if inner is not None:
            kept.append(part)
            annotation = inner
    if fields := _fields(annotation):
        known = list(fields)
    return tuple(kept), known


def _fields(annotation: Any) -> dict[str, Any]:
    # For Python 3.10, `tuple[int, ...]` is a type but no class.
    is_class = isinstance(annotation, type) and typing.get_origin(annotation) is None
    if is_class and issubclass(annotation, BaseModel):
        fields: dict[str, Any] = annotation.model_fields
        return fields
    return {}


def _container(annotation: Any, part: int | str) -> Any:
    """What a list or mapping holds; ``None`` where ``part`` only names an alternative."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return _container(arguments[0], part)
    if origin in (typing.Union, types.UnionType):
        found = (_container(each, part) for each in arguments)
        return next((each for each in found if each is not None), None)
    if origin in (tuple, list) and isinstance(part, int):
        return arguments[0]
    if origin is dict and not isinstance(part, int):
        return arguments[1]
    return None
