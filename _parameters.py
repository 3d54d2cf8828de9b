"""Parameters in a spec: the keywords that something takes, and values as their types want them."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError

__all__ = ["Keywords", "is_finite", "read_value"]


class Keywords(typing.NamedTuple):
    """The keywords that a callable takes.

    Attributes:
        types: Annotation by keyword; ``Any`` where there is none.
        required: Those without a default.
        open: Whether it takes any other keyword too.
    """

    types: dict[str, Any]
    required: list[str]
    open: bool

    @classmethod
    def of(cls, target: Callable[..., Any], passed: Collection[str]) -> Keywords:
        """Read a signature.

        Args:
            target: A class or function.
            passed: Arguments that a spec must not give.
        """
        parameters = inspect.signature(target).parameters.values()
        named = [
            each
            for each in parameters
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
            and each.name not in passed
        ]
        hints = _hints(target)
        return cls(
            {each.name: hints.get(each.name, Any) for each in named},
            [each.name for each in named if each.default is inspect.Parameter.empty],
            any(each.kind is each.VAR_KEYWORD for each in parameters),
        )


def _hints(target: Any) -> dict[str, Any]:
    """Annotations of the keywords; none where one names what only type checkers import."""
    plain_class = isinstance(target, type) and not dataclasses.is_dataclass(target)
    try:
        return typing.get_type_hints(
            target.__init__ if plain_class else target, include_extras=True
        )
    except Exception:
        return {}


def read_value(value: Any, annotation: Any) -> Any:
    """A parameter as its annotation wants it.

    Args:
        value: As YAML gives it, or an object from Python.
        annotation: A type; what cannot be checked is believed.

    Raises:
        ValidationError: If the value is not of the type, or out of its range.
    """
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticUserError, TypeError, NameError):
        # Not a type that can be checked.
        return value
    if _has_truth_value(value):
        # Otherwise true would be taken for the number 1.
        return adapter.validate_json(json.dumps(value), strict=True)
    # YAML takes 1e-3 for text; this takes it for a number where a number is wanted.
    return adapter.validate_python(value)


def is_finite(value: Any) -> bool:
    """Whether no number in a parameter is infinite or not a number."""
    if isinstance(value, Mapping):
        return all(map(is_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _has_truth_value(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_truth_value, value.values()))
    if isinstance(value, list):
        return any(map(_has_truth_value, value))
    return isinstance(value, bool)
