"""What strangers rely on: declared dependencies, tested Pythons, a citation of this version."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).resolve().parents[1]
_NOT_SHIPPED = {"tests", "benchmarks", "examples", "docs", "build", "dist", "runs"}

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    tomllib = pytest.importorskip("tomli")


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    return project


def _names(requirements: list[str]) -> set[str]:
    names = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return {_normal(name.group()) for name in names if name is not None}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported(files: list[Path]) -> set[str]:
    """Top-level names of what is imported by other than relative imports, the own one left out."""
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"prunetune"}


def _shipped_files() -> list[Path]:
    inside = (file.relative_to(_ROOT).parts for file in _ROOT.rglob("*.py"))
    shipped = (parts for parts in inside if parts[0] not in _NOT_SHIPPED)
    return [_ROOT.joinpath(*p) for p in shipped if not any(part.startswith(".") for part in p)]


def _undeclared(imported: set[str], declared: set[str]) -> set[str]:
    owners = packages_distributions()
    return {
        module
        for module in imported
        if module in owners and not {_normal(name) for name in owners[module]} & declared
    }


def test_every_package_that_is_imported_is_declared() -> None:
    project = _project()
    declared = _names(project["dependencies"])
    optional = project["optional-dependencies"]
    extras = {name for each, names in optional.items() if each != "dev" for name in _names(names)}
    assert _undeclared(_imported(_shipped_files()), declared | extras) == set()


def test_every_dependency_has_a_lower_bound() -> None:
    for requirement in _project()["dependencies"]:
        assert ">=" in requirement, requirement


def test_pythons_that_are_claimed_are_those_that_are_tested() -> None:
    workflow = yaml.safe_load((_ROOT / ".github" / "workflows" / "ci.yml").read_text())
    tested = set(workflow["jobs"]["fast"]["strategy"]["matrix"]["python"])
    prefix = "Programming Language :: Python :: "
    versions = [c.removeprefix(prefix) for c in _project()["classifiers"] if c.startswith(prefix)]
    assert {version for version in versions if "." in version} == tested
    oldest = workflow["jobs"]["oldest"]["steps"][1]["with"]["python-version"]
    assert _project()["requires-python"] == f">={oldest}"


def test_the_workflow_runs_all_checks() -> None:
    workflow = yaml.safe_load((_ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["everything"]["steps"]
    assert {"run": ".ci/run"} in steps
    assert (_ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_issue_templates_ask_for_something(name: str) -> None:
    form = yaml.safe_load((_ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
    assert form["name"] and form["description"]
    assert any(part.get("validations", {}).get("required") for part in form["body"])


def test_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((_ROOT / "CITATION.cff").read_text())
    assert citation["version"] == _project()["version"]
    assert citation["license"] == _project()["license"]
