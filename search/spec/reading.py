"""Reading a spec file: YAML, overrides, paths, and one clear sentence for every mistake."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ..._registry import nearest
from ...errors import SpecError
from .model import AgentSpec, BudgetSpec, CompareSpec, FinetuneSpec, SearchSpec
from .paths import anchor_paths

__all__ = [
    "AgentSpec",
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


def load_spec(path: Path | str, overrides: Sequence[str] = ()) -> SearchSpec:
    """Read a spec file and make its paths absolute.

    Args:
        path: A YAML file. Relative paths in it (weights, data, the user's own files) are meant
            relative to its folder.
        overrides: ``key.sub=value`` each; values are YAML and replace what the file says.

    Raises:
        SpecError: If the file or an override is not what it should be, in one sentence.
    """
    spec = read_spec_file(path, overrides)
    folder = Path(path).expanduser().resolve().parent
    return SearchSpec.model_validate(anchor_paths(spec.to_dict(), folder))


def read_spec_file(path: Path | str, overrides: Sequence[str] = ()) -> SearchSpec:
    """Read a spec file and leave its paths as they are written; see `load_spec`."""
    file = Path(path).expanduser()
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except FileNotFoundError:
        raise SpecError(f"There is no spec file {path}; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"The spec file {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise SpecError(f"The spec file {path} is not YAML: {_yaml_problem(error)}.") from error
    if not isinstance(values, dict):
        raise SpecError(f"The spec file {path} must hold keys and values, such as `budgets:`.")
    override_values(values, overrides)
    values.setdefault("name", file.stem)
    return read_spec(values, str(path))


def read_spec(values: Mapping[str, Any], source: str = "the spec") -> SearchSpec:
    """A spec from plain values.

    Args:
        values: As YAML gives them.
        source: Where they come from, for messages.

    Raises:
        SpecError: If they do not describe a search, in one sentence.
    """
    try:
        return SearchSpec.model_validate(values)
    except ValidationError as error:
        raise SpecError(f"In {source}, {_sentence(error)}") from None


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


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML's own loader silently takes the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping with every key once."""
        seen: set[str] = set()
        scalars = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in scalars:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise SpecError(f"The override {override!r} is not of the form key.sub=value.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"The override {override!r} is not YAML: {_yaml_problem(error)}.") from None
    target = values
    for part in path[:-1]:
        inner = target.get(part)
        if not isinstance(inner, dict):
            # `reward: accuracy` is short for a mapping with a name.
            inner = {"name": inner} if isinstance(inner, str) else {}
            target[part] = inner
        target = inner
    target[path[-1]] = value


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}, line {mark.line + 1}, column {mark.column + 1}" if mark else problem


def _sentence(error: ValidationError) -> str:
    """The first mistake; where alternatives all failed, what each of them wants."""
    mistakes = error.errors(include_url=False)
    # An unknown key is most often the cause of the others: a missing one, misspelt.
    mistakes.sort(key=lambda mistake: mistake["type"] != "extra_forbidden")
    first = mistakes[0]
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
