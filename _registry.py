"""Names in specs: ours by registry, the user's own as references; see ``_references``.

A spec names rewards, measures, criteria, agents, networks, data sets and costs. Each of these has
one `Registry`, and what a spec says of one is a `NamedSpec`. A registry checks names and parameters
when a spec is read, so that a mistake costs no time.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ._nearest import nearest, pick
from ._parameters import Keywords, is_finite, read_value
from ._references import imported, is_reference, resolve
from .errors import PluginError, PruneTuneError, SpecError

__all__ = [
    "NamedSpec",
    "Registry",
]

T = TypeVar("T")


class NamedSpec(BaseModel):
    """Something that a spec names; a plain string is its name.

    Attributes:
        name: A name of the registry, or the user's own ``module:Name`` or ``path/to/file.py:Name``.
        parameters: Keyword arguments of what it names, or fields of its ``Parameters``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read_shorthand(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("parameters")
    @classmethod
    def _check_finite(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        # They could not be written: JSON has no such numbers.
        for name, value in parameters.items():
            if not is_finite(value):
                raise ValueError(f"{name}: {value!r} should be a finite number")
        return parameters

    @property
    def title(self) -> str:
        """Name and parameters for people."""
        parameters = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.name} ({parameters})" if parameters else self.name


class Registry(Mapping[str, Any], Generic[T]):
    """What a spec may name, of one kind; a mapping from names to classes, functions or objects.

    A class takes its parameters as typed keywords of its constructor, or has a class attribute
    ``Parameters``, a frozen dataclass, and takes one keyword ``parameters`` of that type.

    Args:
        kind: What is named, for messages: "reward", "model", ...
        entries: By name, the class, function or object, or where it is as ``module:Name``: it is
            then imported when it is needed first.
        base: The class of which every class here is a subclass; ``None`` where functions are named.
        public: Where users import that class from, such as ``prunetune.rewards.Reward``.
        passed: Arguments that the package passes itself; a spec must not.
        early: Whether `check` builds the object, because that is cheap and refuses wrong values.
        forms: Other ways to name one, with what they mean, for `describe`.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, Any],
        base: type[Any] | None = None,
        public: str = "",
        *,
        passed: Collection[str] = (),
        early: bool = False,
        forms: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self._entries = dict(entries)
        self._base = base
        self._passed = frozenset(passed)
        self._early = early
        self._public = public
        self._forms = dict(forms or {})
        if base is not None:
            self._forms.setdefault("FILE.py:CLASS", f"The user's own subclass of {public}.")

    def __getitem__(self, name: str) -> Any:
        entry = self._entries[name]
        return imported(entry, self.kind) if isinstance(entry, str) else entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: str) -> Any:
        """The class, function or object that a spec names.

        Args:
            name: One of ours, or a reference to the user's own.

        Raises:
            UnknownNameError: If none of ours has that name; the message suggests the nearest.
            PluginError: If the user's own cannot be imported or is not what it should be.
        """
        found = resolve(name, self.kind) if is_reference(name) else pick(self.kind, name, self)
        if self._base is None:
            if not callable(found):
                raise PluginError(
                    f"The {self.kind} {name!r} is a {type(found).__name__}; name a function."
                )
        elif not isinstance(found, self._base) and not (
            isinstance(found, type) and issubclass(found, self._base)
        ):
            raise PluginError(f"The {self.kind} {name!r} must be a subclass of {self._public}.")
        return found

    def check(self, spec: NamedSpec | str, own: bool = True) -> None:
        """Check a name and its parameters, before time is spent on anything.

        Args:
            spec: The name, with or without parameters.
            own: Whether the user's own files are imported; otherwise their names are believed.

        Raises:
            UnknownNameError: If none of ours has that name; the message suggests the nearest.
            PluginError: If the user's own cannot be imported or is not what it should be.
            SpecError: If a parameter is unknown, missing, of the wrong type or out of range.
        """
        spec = _named(spec)
        if is_reference(spec.name):
            if not own:
                return
        elif not spec.parameters and isinstance(self._entries.get(spec.name), str):
            # Nothing of it can be wrong, and to import it may take seconds.
            return
        found = self.find(spec.name)
        if self._early or not isinstance(found, type):
            self.make(spec)
        elif self._base is not None:
            self._arguments(spec, found)

    def make(self, spec: NamedSpec | str, *passed: Any) -> T:
        """Build what a spec names.

        Args:
            spec: The name, with or without parameters.
            passed: Positional arguments of the constructor, before the parameters.

        Raises:
            PruneTuneError: As `check`.
        """
        spec = _named(spec)
        found = self.find(spec.name)
        if not isinstance(found, type):
            if spec.parameters:
                raise SpecError(
                    f"The {self.kind} {spec.name!r} is an object already and takes no parameters; "
                    "name its class to give some."
                )
            return typing.cast("T", found)
        arguments = self._arguments(spec, found)
        try:
            return typing.cast("T", found(*passed, **arguments))
        except PruneTuneError:
            raise
        except Exception as error:
            raise (PluginError if is_reference(spec.name) else SpecError)(
                f"The {self.kind} {spec.name!r} cannot be built with parameters "
                f"{spec.parameters}: {type(error).__name__}: {error}"
            ) from error

    def describe(self) -> dict[str, str]:
        """What each name means: the first sentence that what it names says of itself."""
        return {**{name: _meaning(self[name]) for name in self}, **self._forms}

    def _arguments(self, spec: NamedSpec, found: type[Any]) -> dict[str, Any]:
        """Keyword arguments for a class, from the parameters of a spec."""
        title = f"The {self.kind} {spec.name!r}"
        declared = getattr(found, "Parameters", None)
        if declared is None:
            return _validated(title, spec, Keywords.of(found, self._passed))
        values = _validated(title, spec, Keywords.of(declared, ()))
        try:
            return {"parameters": declared(**values)}
        except ValueError as error:
            raise SpecError(f"{title} has wrong parameters: {error}.") from error


def _validated(title: str, spec: NamedSpec, keywords: Keywords) -> dict[str, Any]:
    for given in spec.parameters:
        if given not in keywords.types and not keywords.open:
            known = keywords.types
            hint = nearest(given, known) if known else "it takes none."
            raise SpecError(f"{title} has no parameter {given!r}; {hint}")
    for name in keywords.required:
        if name not in spec.parameters:
            raise SpecError(
                f"{title} needs the parameter {name!r}; write "
                f"{{name: {spec.name}, parameters: {{{name}: ...}}}}."
            )
    values = {}
    for name, value in spec.parameters.items():
        try:
            values[name] = read_value(value, keywords.types.get(name, Any))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, (name, *first["loc"])))
            wanted = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
            wanted = wanted.partition(", unable to parse")[0]
            raise SpecError(f"{title} has {key}: {first['input']!r}, but {wanted}.") from None
    return values


def _named(spec: NamedSpec | str) -> NamedSpec:
    return NamedSpec(name=spec) if isinstance(spec, str) else spec


def _meaning(thing: Any) -> str:
    while isinstance(thing, functools.partial):
        thing = thing.func
    paragraph = (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("``", "")
    # A sentence ends where the next one begins; "et al. 2015" goes on.
    return re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(paragraph.split()), maxsplit=1)[0]
