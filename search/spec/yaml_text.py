"""YAML as specs are written in it: every key once, bounded in size and depth."""

from __future__ import annotations

from typing import Any

import yaml

from ...errors import SpecError

__all__ = ["MOST_BYTES", "yaml_values"]

_DEEPEST = 50
# A spec with a large grid has some thousands; a few aliases of aliases have billions.
_MOST_VALUES = 100_000

MOST_BYTES = 4 * 2**20
"""Of a spec's text."""

_WRONG_SCALAR = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def yaml_values(text: str, source: str) -> Any:
    """What YAML text says.

    Args:
        text: The text.
        source: Where it comes from, to begin a sentence with.

    Raises:
        SpecError: If it is no YAML, has a key twice, or is too large or too deep for a spec.
    """
    if len(text) > MOST_BYTES:
        raise SpecError(
            f"{source} has {len(text) / 2**20:.0f} MB, and a spec has at most "
            f"{MOST_BYTES // 2**20}; give a spec."
        )
    try:
        values = yaml.load(text, _UniqueKeyLoader)
        _check_size(values, source)
    except yaml.YAMLError as error:
        raise SpecError(f"{source} is not YAML: {_problem(error)}.") from None
    except RecursionError:
        raise SpecError(f"{source} is nested too deeply; write it flatter.") from None
    except _WRONG_SCALAR as error:
        # Such as a date with a thirteenth month; YAML's loader lets Python's own error through.
        raise SpecError(
            f"{source} has a value that YAML cannot read ({error}); put it in quotes."
        ) from None
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML's own loader silently takes the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping with every key once."""
        seen: set[str] = set()
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        scalars = [key for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
        for key in scalars:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _check_size(values: Any, source: str) -> None:
    """Refuse what is deeper than any spec, or, by aliases, larger than its text."""
    level, count, depth = [values], 0, 0
    while level:
        count, depth = count + len(level), depth + 1
        if depth > _DEEPEST + 1:
            raise SpecError(f"{source} is nested more than {_DEEPEST} deep; write it flatter.")
        if count > _MOST_VALUES:
            raise SpecError(f"{source} has more than {_MOST_VALUES} values; write fewer.")
        inner = (_inner(value) for value in level)
        level = [each for values in inner for each in values]


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}, line {mark.line + 1}, column {mark.column + 1}" if mark else problem
