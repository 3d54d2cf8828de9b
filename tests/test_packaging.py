"""The wheel: complete, typed, and usable away from the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import prunetune
import pytest

_ROOT = Path(__file__).resolve().parents[1]
_NOT_OURS = {"tests", "benchmarks", "examples", "docs", "build", "dist", "runs"}

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    tomllib = pytest.importorskip("tomli")


def _project() -> dict:  # type: ignore[type-arg]
    return tomllib.loads((_ROOT / "pyproject.toml").read_text())


def _packages_in_tree() -> set[str]:
    found = {"prunetune"}
    for marker in _ROOT.rglob("__init__.py"):
        parts = marker.relative_to(_ROOT).parent.parts
        if parts and parts[0] not in _NOT_OURS and not parts[0].startswith("."):
            found.add(".".join(("prunetune", *parts)))
    return found


def test_every_package_of_the_tree_is_listed() -> None:
    assert set(_project()["tool"]["setuptools"]["packages"]) == _packages_in_tree()


def test_every_folder_with_modules_is_a_package() -> None:
    for package in _packages_in_tree() - {"prunetune"}:
        folder = _ROOT.joinpath(*package.split(".")[1:])
        for child in folder.iterdir():
            if child.is_dir() and any(child.glob("*.py")):
                assert (child / "__init__.py").exists(), f"{child} lacks __init__.py"


def test_version_is_that_of_the_project() -> None:
    assert prunetune.__version__ == _project()["project"]["version"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the checkout, so that no build folder is left in it."""
    pytest.importorskip("setuptools", minversion="80")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignore = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "__pycache__")
    shutil.copytree(_ROOT, source, ignore=ignore)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_wheel_has_every_module_and_the_typing_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"prunetune/py.typed", "prunetune/search/quickstart.yaml"} <= names
    for package in _packages_in_tree():
        folder = _ROOT.joinpath(*package.split(".")[1:])
        for module in folder.glob("*.py"):
            inside = Path("prunetune", *package.split(".")[1:], module.name).as_posix()
            assert inside in names
    assert not [name for name in names if re.match(r"prunetune/(tests|benchmarks|docs)/", name)]
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    script = (
        "import prunetune, prunetune.search, prunetune.cluster, prunetune.envs;"
        "import prunetune.rewards, prunetune.models, prunetune.cli; print(prunetune.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(target)
    version = subprocess.run(
        [sys.executable, "-m", "prunetune", "--version"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert prunetune.__version__ in version.stdout
