"""Names and parameters: what a registry builds, and the sentence for everything that it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from prunetune._registry import NamedSpec, Registry
from prunetune.errors import PluginError, PruneTuneError, SpecError, UnknownNameError
from pydantic import Field

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]


class Tool:
    """A thing that is built. It has a second sentence.

    And a second paragraph.
    """


class Hammer(Tool):
    """Hits."""

    def __init__(
        self,
        owner: str,
        weight: float = 1.0,
        hits: int = 1,
        head: Literal["flat", "round"] = "flat",
        sizes: tuple[int, ...] = (),
        prices: Mapping[str, float] | None = None,
    ) -> None:
        if weight <= 0:
            raise ValueError("weight must be positive")
        self.values = (owner, weight, hits, head, sizes, prices)


@dataclass(frozen=True, kw_only=True)
class Common:
    """What saws have in common."""

    teeth: Annotated[int, Field(ge=2)] = 10
    length: Annotated[float, Field(gt=0)] | None = None


@dataclass(frozen=True, kw_only=True)
class SawParameters(Common):
    """Parameters of a saw."""

    material: str
    teeth: Annotated[int, Field(ge=3)] = 30

    def __post_init__(self) -> None:
        if self.material == "glass":
            raise ValueError("a saw of glass breaks")


class Saw(Tool):
    """Cuts."""

    Parameters = SawParameters

    def __init__(self, owner: str, parameters: SawParameters) -> None:
        self.parameters = parameters


class Loose(Tool):
    """Takes anything."""

    def __init__(self, owner: str, odd: Unknown = None, **more: Any) -> None:
        self.odd, self.more = odd, more


TOOLS: Registry[Any] = Registry(
    "tool",
    {"hammer": Hammer, "saw": Saw, "loose": Loose, "late": "no_such_module:Late"},
    Tool,
    "tools.Tool",
    passed=("owner",),
    forms={"FILE.py:CLASS": "The user's own."},
)


def _spec(name: str, **parameters: Any) -> NamedSpec:
    return NamedSpec(name=name, parameters=parameters)


def test_parameters_become_what_their_types_say() -> None:
    spec = _spec("hammer", weight="1e-3", hits=2, sizes=[1, 2], prices={"iron": 3})
    TOOLS.check(spec)
    # YAML reads 1e-3 as text, and has lists where Python has tuples.
    assert TOOLS.make(spec, "me").values == ("me", 1e-3, 2, "flat", (1, 2), {"iron": 3.0})


def test_declared_parameters_are_one_frozen_object() -> None:
    saw = TOOLS.make(_spec("saw", material="steel", length=2), "me")
    assert saw.parameters == SawParameters(material="steel", length=2.0, teeth=30)


def test_open_keywords_and_unknown_annotations_are_passed_on() -> None:
    loose = TOOLS.make(_spec("loose", odd=[True], other=1), "me")
    assert (loose.odd, loose.more) == ([True], {"other": 1})


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (_spec("hamer"), "Unknown tool 'hamer': did you mean 'hammer'?"),
        (_spec("hammer", wieght=1), "has no parameter 'wieght'; did you mean 'weight'?"),
        (_spec("hammer", owner="you"), "has no parameter 'owner'"),
        (_spec("hammer", weight="much"), "weight: 'much', but it should be a valid number."),
        (_spec("hammer", weight=True), "weight: True, but it should be a valid number."),
        (_spec("hammer", hits=1.5), "hits: 1.5, but it should be a valid integer"),
        (_spec("hammer", head="square"), "head: 'square', but it should be 'flat' or 'round'."),
        (_spec("hammer", sizes=[1, "x"]), "sizes.1: 'x', but it should be a valid integer"),
        (_spec("hammer", prices={"iron": True}), "prices.iron: True, but it should be a valid"),
        (_spec("saw"), "needs the parameter 'material'; write {name: saw, parameters: {material"),
        (_spec("saw", material="steel", tooth=3), "no parameter 'tooth'; did you mean 'teeth'?"),
        (_spec("saw", material="steel", teeth=2), "teeth: 2, but it should be greater than or eq"),
        (_spec("saw", material="steel", length=0), "length: 0, but it should be greater than 0."),
        (_spec("saw", material="glass"), "has wrong parameters: a saw of glass breaks."),
        (_spec("late", size=1), "'no_such_module:Late' cannot be imported"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_mistakes_are_one_sentence_before_anything_is_built(spec: NamedSpec, said: str) -> None:
    with pytest.raises(PruneTuneError) as caught:
        TOOLS.check(spec)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_only_building_shows_is_refused_early_where_building_is_cheap() -> None:
    early: Registry[Any] = Registry("tool", {"loose": Loose, "hammer": _Ready}, Tool, early=True)
    with pytest.raises(SpecError, match="weight must be positive"):
        early.check(_spec("hammer", weight=0))


class _Ready(Hammer):
    """A hammer of nobody's."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__("nobody", weight)


def test_nothing_is_imported_that_is_not_needed() -> None:
    TOOLS.check("late")
    assert "late" in TOOLS and len(TOOLS) == 4
    with pytest.raises(PluginError):
        TOOLS["late"]


def test_the_users_own_is_imported_or_believed(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import sys\nsys.exit(3)\n")
    reference = f"{tmp_path}/own.py:Mine"
    TOOLS.check(reference, own=False)
    with pytest.raises(PluginError, match="cannot be imported: SystemExit: 3"):
        TOOLS.check(reference)
    with pytest.raises(PluginError, match="does not exist"):
        TOOLS.check(f"{tmp_path}/none.py:Mine")
    with pytest.raises(PluginError, match=r"must be a subclass of tools\.Tool\."):
        TOOLS.check("math:pi")


def test_objects_take_no_parameters() -> None:
    ready: Registry[Any] = Registry("tool", {"mine": Tool()}, Tool)
    assert isinstance(ready.make("mine"), Tool)
    with pytest.raises(SpecError, match="an object already and takes no parameters"):
        ready.check(_spec("mine", weight=1))


def test_functions_are_named_where_there_is_no_class() -> None:
    functions: Registry[Any] = Registry("function", {"length": len, "number": 3})
    functions.check("length")
    with pytest.raises(PluginError, match="is a int; name a function"):
        functions.check("number")
    with pytest.raises(UnknownNameError, match="did you mean 'length'"):
        functions.check("lenght")


def test_descriptions_are_first_sentences() -> None:
    known: Registry[Any] = Registry("tool", {"saw": Saw, "tool": Tool}, forms={"FILE": "Yours."})
    assert known.describe() == {
        "saw": "Cuts.",
        "tool": "A thing that is built.",
        "FILE": "Yours.",
    }


def test_a_title_has_the_parameters() -> None:
    assert _spec("saw").title == "saw"
    assert _spec("saw", teeth=3, material="steel").title == "saw (teeth=3, material=steel)"
