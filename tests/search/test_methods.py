"""Methods are parts of a spec that stand under what the spec says itself."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from prunetune.errors import SpecError
from prunetune.search.spec.methods import METHODS, describe_methods, with_method
from prunetune.search.spec.reading import read_spec

_SPEC: dict[str, Any] = {"task": {"model": "digits-net"}, "budgets": {"flops": 0.5}}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_makes_a_valid_spec_that_says_which_it_is(name: str) -> None:
    spec = read_spec({**_SPEC, "method": name})
    assert spec.method == name
    values = spec.to_dict()
    for key, value in METHODS[name].values.items():
        written = values[key]
        if key == "finetune":
            assert {inner: written[inner] for inner in value} == value
        else:
            assert value in (written, written.get("name") if isinstance(written, dict) else None)
    # What a run folder keeps is read back as the same spec.
    assert read_spec(values) == spec


def test_the_default_method_is_no_method() -> None:
    plain = read_spec(_SPEC)
    assert read_spec({**_SPEC, "method": "default"}).to_dict() == {
        **plain.to_dict(),
        "method": "default",
    }


def test_what_a_spec_says_counts_before_its_method() -> None:
    spec = read_spec(
        {
            **_SPEC,
            "method": "pfp",
            "evaluations": 3,
            "finetune": {"epochs": 2},
            "criterion": {"name": "pfp", "parameters": {"variant": "random"}},
        }
    )
    assert (spec.evaluations, spec.agent.name, spec.repair) == (3, "pfp", "none")
    assert spec.criterion.parameters == {"variant": "random"}
    assert (spec.finetune.epochs, spec.finetune.repair) == (2, "none")


def test_an_unknown_method_gets_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'pfp'"):
        with_method({**_SPEC, "method": "pfpp"})


def test_the_verbose_list_shows_the_part_of_a_spec() -> None:
    text = describe_methods(verbose=True)["pfp"]
    assert "1911.07412" in text and "agent: pfp" in text
    values = yaml.safe_load("\n".join(text.splitlines()[3:]))
    assert values == dict(METHODS["pfp"].values)
