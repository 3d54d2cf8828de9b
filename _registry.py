"""Names in specs: ours by registry, the user's own as ``module:Name`` or ``file.py:Name``.

Objects of a Python session are named ``live:Name@DIGEST``; see ``_live``.

A spec names rewards, measures, criteria, agents, networks, data sets and costs. Each of these has
one `Registry`, and what a spec says of one is a `NamedSpec`. A registry checks names and parameters
when a spec is read, so that a mistake costs no time.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ._live import is_live, live_name, live_object, users_modules
from ._parameters import Keywords, is_finite, read_value
from ._sources import make_importable, shadowed_import
from .errors import PluginError, PruneTuneError, SpecError, UnknownNameError

__all__ = [
    "NamedSpec",
    "Registry",
    "imported_anew",
    "is_reference",
    "nearest",
    "pick",
    "resolve",
    "user_modules",
]

T = TypeVar("T")

_USER_PREFIX = "_prunetune_user_"

_ONLY_OURS: ContextVar[bool] = ContextVar("only_ours", default=False)


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
        return _attribute(entry, self.kind) if isinstance(entry, str) else entry

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


def is_reference(name: str) -> bool:
    """Whether ``name`` points at the user's own object rather than at one of ours."""
    return ":" in name


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause suggesting the nearest known name, or listing all when nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(names)}."


def pick(kind: str, name: str, known: Mapping[str, T]) -> T:
    """Look ``name`` up among ``known``.

    Args:
        kind: What is looked up, for the message ("reward", "model", ...).
        name: The name as the user wrote it.
        known: Everything it may be.

    Raises:
        UnknownNameError: If there is no such name; the message suggests the nearest.
    """
    try:
        return known[name]
    except KeyError:
        raise UnknownNameError(f"Unknown {kind} {name!r}: {nearest(name, known)}") from None


def resolve(reference: str, kind: str) -> Any:
    """Import the user's own object.

    Args:
        reference: ``module:Name``, ``path/to/file.py:Name`` or ``live:Name@DIGEST``.
        kind: What it is meant to be, for the message ("reward", "model", ...).

    Raises:
        PluginError: If the file or module cannot be imported or has no such name, the object is
            one of another Python session, or only ours may be used (`only_ours`).
    """
    if _ONLY_OURS.get():
        raise PluginError(f"The {kind} {reference!r} is not one of ours, and is not run here.")
    return _live(reference, kind) if is_live(reference) else _attribute(reference, kind)


@contextlib.contextmanager
def only_ours() -> Iterator[None]:
    """Nothing that a spec names is imported inside but what is ours.

    For reading what somebody else wrote: whatever way leads to their code, it is closed.
    """
    before = _ONLY_OURS.set(True)
    try:
        yield
    finally:
        _ONLY_OURS.reset(before)


def _attribute(reference: str, kind: str) -> Any:
    """What a file or module defines, ours or the user's."""
    location, _, attribute = reference.rpartition(":")
    try:
        module = (
            _module_from_file(Path(location))
            if location.endswith(".py")
            else _module_by_name(location)
        )
    except FileNotFoundError:
        raise PluginError(
            f"The {kind} {reference!r} names the file {location!r}, which does not exist."
        ) from None
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"The {kind} {reference!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise PluginError(
            f"The {kind} {reference!r}: {location} has no {attribute!r}; "
            f"{nearest(attribute, public)}"
        ) from None


def _live(reference: str, kind: str) -> Any:
    try:
        return live_object(reference)
    except KeyError:
        raise PluginError(
            f"The {kind} {live_name(reference)!r} ({reference}) is an object of the Python session "
            "that made it, and not a file; give the object again, for example with "
            "prunetune.resume(RUN, task=TASK, objects=[...])."
        ) from None
    except Exception as error:
        raise PluginError(
            f"The {kind} {live_name(reference)!r} cannot be rebuilt in this process: "
            f"{type(error).__name__}: {error}"
        ) from error


def user_modules() -> list[ModuleType]:
    """The user's own files that were imported in this process, and what lies beside them."""
    files = [module for name, module in sys.modules.items() if name.startswith(_USER_PREFIX)]
    folders = {Path(str(module.__file__)).parent for module in files}
    beside = [
        module
        for module in users_modules()
        if module not in files and folders & set(Path(str(module.__file__)).parents)
    ]
    return files + beside


@contextlib.contextmanager
def imported_anew() -> Iterator[None]:
    """Import the user's own modules again inside, as a new process would; outside they stay."""
    own = {id(module) for module in (*users_modules(), *user_modules())}
    before = {
        name: module
        for name, module in sys.modules.items()
        if id(module) in own and name != "__main__"
    }
    for name in before:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.modules.update(before)


def _module_by_name(name: str) -> ModuleType:
    # The command has the folder of its own script there, and not the one it was called in.
    make_importable(Path.cwd())
    return importlib.import_module(name)


def _module_from_file(path: Path) -> ModuleType:
    resolved = path.expanduser().resolve()
    if not resolved.is_file():
        raise FileNotFoundError(path)
    # The name is a function of the path so that objects from the file pickle between processes
    # that both resolved it, and two files of one name do not shadow each other.
    digest = hashlib.sha256(str(resolved).encode()).hexdigest()[:12]
    name = f"{_USER_PREFIX}{resolved.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, resolved)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")
    make_importable(resolved.parent)
    if (shadowed := shadowed_import(resolved)) is not None:
        raise ImportError(
            f"it imports {shadowed[0]} from its own folder, but {shadowed[1]} was imported by that "
            "name already; rename one of them"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
