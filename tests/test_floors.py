"""The floors of the house: each imports only from those below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]

# CONTRIBUTING.md draws this. Modules at the top level are floors of their own.
_FLOORS = {
    "__init__": 1,
    "_compat": 0,
    "_home": 0,
    "_live": 1,
    "_parameters": 0,
    "_sources": 0,
    "_text": 0,
    "errors": 0,
    "_lazy": 1,
    "_nearest": 1,
    "_references": 2,
    "_registry": 3,
    "models": 4,
    "rewards": 5,
    "envs": 6,
    "cluster": 7,
    "search": 8,
    "cli": 10,
    "__main__": 11,
    # What users import in their own tests; nothing inside imports it.
    "testing": 11,
}
_WITHOUT_RAY = ("models", "rewards", "envs")


# It offers what users import, from all floors, and gives the others its version only.
_PUBLIC = _ROOT / "__init__.py"


def _sources() -> list[Path]:
    top = sorted(_ROOT.glob("*.py"))
    folders = [name for name in _FLOORS if (_ROOT / name).is_dir()]
    return top + [path for name in folders for path in sorted((_ROOT / name).rglob("*.py"))]


def _floor(path: Path) -> str:
    return path.relative_to(_ROOT).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, by absolute name."""
    package = ("prunetune", *path.relative_to(_ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *(node.module or "").split("."))).rstrip(".")
            yield module
            # `from .. import models` imports the module prunetune.models.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_floor() -> None:
    assert {_floor(path) for path in _sources()} <= set(_FLOORS)


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(_ROOT)))
def test_imports_only_from_below(path: Path) -> None:
    floor = _floor(path)
    if path == _PUBLIC:
        return
    for module in _imports(path):
        parts = module.split(".")
        if parts[0] != "prunetune" or len(parts) < 2 or parts[1] not in _FLOORS:
            continue
        target = parts[1]
        assert target == floor or _FLOORS[target] < _FLOORS[floor], f"{path} imports {module}"


@pytest.mark.parametrize("floor", _WITHOUT_RAY)
def test_lower_floors_do_not_know_ray(floor: str) -> None:
    for path in sorted((_ROOT / floor).rglob("*.py")):
        tops = {module.split(".")[0] for module in _imports(path)}
        assert "ray" not in tops, f"{path} imports ray"


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(_ROOT)))
def test_imports_inside_the_package_are_relative(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert (node.module or "").split(".")[0] != "prunetune", path
        elif isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] != "prunetune" for alias in node.names), path
