"""Writes the generated parts of docs/reference/ from the code.

    python docs/generate.py

A page has prose and parts between ``<!-- generated: NAME -->`` and ``<!-- end -->``; only these are
replaced. `tests/test_reference.py` fails where a page is out of date.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from prunetune.cli.app import app
from prunetune.search.run.summary import Best, Counts, Dense, Summary
from prunetune.search.spec.model import SearchSpec
from prunetune.search.spec.names import REGISTRIES, registry
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

PAGES = Path(__file__).resolve().parent / "reference"

_PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)
# Arguments that the package passes itself.
_PASSED = ("self", "judge", "seed", "evaluations")
# The package makes them of tables.
_WITHOUT_PARAMETERS = ("costs",)


def render(page: str) -> str:
    """A page with its generated parts made anew."""
    return _PART.sub(lambda part: part.group(1) + PARTS[part.group(2)]() + part.group(3), page)


def described(thing: Any, section: str) -> dict[str, str]:
    """What a Google docstring says under ``Attributes:`` or ``Args:``, by name; parents' last."""
    found: dict[str, str] = {}
    for each in reversed(inspect.getmro(thing)):
        text = inspect.cleandoc(each.__doc__ or "")
        match = re.search(rf"^{section}:\n((?:    .*\n?|\n)+)", text, re.M)
        entries = (
            re.findall(r"^    (\w+): (.*(?:\n        .*)*)", match.group(1), re.M) if match else []
        )
        found |= {name: " ".join(meaning.split()) for name, meaning in entries}
    return found


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def _escaped(text: str) -> str:
    plain = re.sub(r":\w+:`", "`", re.sub(r"``([^`]*)``", r"`\1`", text))
    return plain.replace("|", "\\|")


def _type_text(annotation: Any) -> str:
    """An annotation in the words of YAML."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_text(arguments[0])
    if origin in (typing.Union, types.UnionType):
        kept = [each for each in arguments if each is not type(None)]
        return " or ".join(dict.fromkeys(map(_type_text, kept)))
    if origin is typing.Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin in (tuple, list) or origin is getattr(typing, "Sequence", None):
        inner = [each for each in arguments if each is not Ellipsis]
        if origin is tuple and Ellipsis not in arguments:
            return f"[{', '.join(map(_type_text, inner))}]"
        return f"list of {_type_text(inner[0])}" if inner else "list"
    if origin is dict:
        return f"mapping to {_type_text(arguments[1])}"
    names = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path"}
    if annotation in names:
        return names[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "name, or name and parameters" if "parameters" in annotation.model_fields else "keys"
    return "any"


def _limits_text(field: FieldInfo) -> str:
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = [
        f"{word} {getattr(each, sign)}"
        for each in field.metadata
        for sign, word in signs.items()
        if getattr(each, sign, None) is not None
    ]
    return ", ".join(limits)


def _value_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, BaseModel):
        name = getattr(value, "name", None)
        return f"`{name}`" if "parameters" in type(value).model_fields else "below"
    if isinstance(value, tuple | list):
        return f"`[{', '.join(_value_text(each).strip('`') for each in value)}]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model of keys that a field holds, if it does."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        is_model = issubclass(annotation, BaseModel) and "parameters" not in annotation.model_fields
        return annotation if is_model else None
    found = (_model_of(each) for each in typing.get_args(annotation))
    return next((each for each in found if each is not None), None)


def _keys(model: type[BaseModel], prefix: str, inherited: BaseModel | None = None) -> str:
    """A section on a model's keys, and one on each of the models inside."""
    meanings = described(model, "Attributes")
    rows, inner = [], ""
    for name, field in model.model_fields.items():
        default = field.default if inherited is None else getattr(inherited, name)
        written = (
            "**required**" if inherited is None and field.is_required() else _value_text(default)
        )
        kind = ", ".join(filter(None, (_type_text(field.annotation), _limits_text(field))))
        rows.append(
            (f"`{prefix}{name}`", _escaped(kind), written, _escaped(meanings.get(name, "")))
        )
        nested = _model_of(field.annotation)
        if nested is not None:
            value = default if isinstance(default, nested) else None
            inner += f"\n## {prefix}{name}\n\n{_keys(nested, f'{prefix}{name}.', value)}"
    return table(("key", "value", "default", "meaning"), rows) + inner


def spec_keys() -> str:
    """All keys of a spec."""
    return _keys(SearchSpec, "")


def _parameters(target: Any) -> list[tuple[str, str, str]]:
    """Name, default and meaning of what a class takes from a spec."""
    declared = getattr(target, "Parameters", None)
    if declared is not None:
        meanings = described(declared, "Attributes")
        fields = dataclasses.fields(declared)
        return [(f.name, _default(f), meanings.get(f.name, "")) for f in fields]
    meanings = described(target, "Args")
    parameters = inspect.signature(target).parameters.values()
    return [
        (p.name, _required(p.default, p.empty), meanings.get(p.name, ""))
        for p in parameters
        if p.name not in _PASSED and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return _value_text(field.default_factory())
    return _required(field.default, dataclasses.MISSING)


def _required(default: Any, missing: Any) -> str:
    return "**required**" if default is missing else _value_text(default)


def names_of(kind: str) -> str:
    """What each name of a registry stands for, and the parameters of those that have some."""
    entries = registry(kind)
    rows = ((f"`{name}`", _escaped(meaning)) for name, meaning in entries.describe().items())
    text = table(("name", "meaning"), rows)
    for name in entries if kind not in _WITHOUT_PARAMETERS else ():
        found = _parameters(entries[name]) if isinstance(entries[name], type) else []
        if found:
            rows_of_one = ((f"`{n}`", default, _escaped(meaning)) for n, default, meaning in found)
            text += f"\nParameters of `{name}`:\n\n"
            text += table(("parameter", "default", "meaning"), rows_of_one)
    return text


def _command(name: str, command: Any) -> str:
    """A section on one command."""
    summary, _, rest = inspect.cleandoc(command.help or "").partition("\n\n")
    words, rows = [], []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            words.append(parameter.metavar or parameter.name.upper())
            rows.append((f"`{words[-1]}`", "**required**", parameter.help or ""))
        elif not getattr(parameter, "hidden", False):
            shown = " or ".join(f"`{each}`" for each in parameter.opts)
            if parameter.metavar:
                shown = f"`{parameter.opts[0]} {parameter.metavar}`"
            default = "**required**" if parameter.required else _option_default(parameter)
            rows.append((shown, default, parameter.help or ""))
    usage = " ".join(("prunetune", name, *words))
    prose = "\n\n".join(" ".join(part.split()) for part in rest.split("\n\n") if part.strip())
    example = re.search(r"Example: (.*)", prose)
    prose = re.sub(r"Example: .*", "", prose).strip()
    parts = [f"## {name}", " ".join(summary.split()), prose, f"    {usage}"]
    parts.append(table(("argument", "default", "meaning"), rows).strip() if rows else "")
    parts.append(f"Example: `{example.group(1)}`" if example else "")
    return "\n\n".join(part for part in parts if part) + "\n\n"


def _option_default(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False) or parameter.default in (None, (), []):
        return "-"
    return _value_text(parameter.default)


def commands() -> str:
    """All commands with their arguments."""
    root: Any = get_command(app)
    shown = {name: each for name, each in root.commands.items() if not each.hidden}
    head = table(
        ("command", "what it does"),
        ((f"[{name}](#{name})", each.help.partition("\n")[0]) for name, each in shown.items()),
    )
    return head + "\n" + "".join(_command(name, each) for name, each in shown.items())


def summary_keys() -> str:
    """What ``summary.json`` says."""
    text = ""
    for title, model in (("", Summary), ("dense", Dense), ("best", Best), ("evaluations", Counts)):
        meanings = described(model, "Attributes")
        fields = (name for name, field in model.model_fields.items() if not field.exclude)
        rows = ((f"`{name}`", _escaped(meanings.get(name, ""))) for name in fields)
        heading = (
            f"\n`{title}`{', one each search' if title == 'best' else ''}:\n\n" if title else ""
        )
        text += heading + table(("key", "meaning"), rows)
    return text


PARTS: Mapping[str, Callable[[], str]] = {
    "spec": spec_keys,
    "commands": commands,
    "summary": summary_keys,
    **{kind: functools.partial(names_of, kind) for kind in REGISTRIES},
}


def main() -> None:
    """Write every page anew."""
    for page in sorted(PAGES.glob("*.md")):
        page.write_text(render(page.read_text()))


if __name__ == "__main__":
    main()
