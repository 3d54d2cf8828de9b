"""The user's own code behind a name: its file and all that it imports, and nothing installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from prunetune._live import source_digest
from prunetune._references import imported_anew, resolve
from prunetune._sources import imported_files, source_digests
from prunetune.errors import PluginError

_FILES = {
    "net.py": "import json, numpy\nimport blocks\nfrom layers.wide import Wide\nclass Net: pass\n",
    "blocks.py": "def later():\n    import importlib\n    importlib.import_module('hidden')\n",
    "hidden.py": "",
    "unused.py": "",
    "layers/__init__.py": "from . import narrow\n",
    "layers/wide.py": "from .narrow import Narrow\nfrom .deep.inner import x\nclass Wide: pass\n",
    "layers/narrow.py": "class Narrow: pass\n",
    "layers/deep/inner.py": "from ... import layers\nx = 1\n",
}
_BEHIND = {
    "net.py",
    "blocks.py",
    "hidden.py",
    "layers/__init__.py",
    "layers/wide.py",
    "layers/narrow.py",
    "layers/deep/inner.py",
}


def _write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Python's search path, which the test may change."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    return sys.path


def test_all_that_a_file_imports_is_behind_its_name(tmp_path: Path) -> None:
    _write(tmp_path, _FILES)
    assert {file.label for file in imported_files(f"{tmp_path}/net.py:Net")} == _BEHIND


def test_a_module_by_name_has_its_packages_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(_write(tmp_path, _FILES))
    labels = [file.label for file in imported_files("layers.narrow:Narrow")]
    assert labels == ["layers/__init__.py", "layers/narrow.py"]


@pytest.mark.parametrize("name", sorted(_BEHIND))
def test_an_edit_of_any_of_them_shows_and_a_copy_elsewhere_is_the_same(
    name: str, tmp_path: Path
) -> None:
    one, two = (_write(tmp_path / each, _FILES) / "net.py" for each in ("one", "two"))
    before = source_digests([f"{one}:Net"])
    assert source_digests([f"{two}:Net"]) == before
    (one.parent / name).write_text(_FILES[name] + "# edited\n")
    after = source_digests([f"{one}:Net"])
    assert {label for label in before if before[label] != after[label]} == {name}


@pytest.mark.parametrize("name", ["json:dumps", "numpy:array", "torchvision:resnet18", "gone:x"])
def test_what_is_installed_or_not_there_has_no_files(name: str) -> None:
    assert source_digests([name]) == {}


def test_a_missing_file_has_no_digest(tmp_path: Path) -> None:
    assert source_digests([f"{tmp_path}/gone.py:x"]) == {"gone.py": None}


def test_a_file_finds_what_lies_beside_it(tmp_path: Path, path: list[str]) -> None:
    _write(tmp_path, {"own_net.py": "from beside_it import x as Net\n", "beside_it.py": "x = 5\n"})
    with imported_anew():
        assert resolve(f"{tmp_path}/own_net.py:Net", "model") == 5


def test_a_module_is_found_in_the_working_folder(
    tmp_path: Path, path: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the console script does not by itself, whose folder is that of the script."""
    path[:] = [entry for entry in path if entry not in ("", str(Path.cwd()))]
    monkeypatch.chdir(_write(tmp_path, {"own_pkg/mod.py": "from . import b\nNet = b.x\n"}))
    _write(tmp_path, {"own_pkg/__init__.py": "", "own_pkg/b.py": "x = 6\n"})
    with imported_anew():
        assert resolve("own_pkg.mod:Net", "model") == 6


def test_files_beside_it_do_not_replace_the_standard_library(
    tmp_path: Path, path: list[str]
) -> None:
    _write(
        tmp_path, {"any_net.py": "import colorsys as Net\n", "colorsys.py": "raise ValueError\n"}
    )
    sys.modules.pop("colorsys", None)
    found: Any = resolve(f"{tmp_path}/any_net.py:Net", "model")
    assert "colorsys" in found.__name__ and not found.__file__.startswith(str(tmp_path))


def test_two_folders_with_modules_of_one_name_are_not_mixed(
    tmp_path: Path, path: list[str]
) -> None:
    for name in ("one", "two"):
        _write(tmp_path / name, {"n.py": "import same_name\nNet = 1\n", "same_name.py": ""})
    with imported_anew():
        resolve(f"{tmp_path}/one/n.py:Net", "model")
        with pytest.raises(PluginError, match=r"same_name from its own folder, but .*/one/"):
            resolve(f"{tmp_path}/two/n.py:Net", "model")


def test_the_code_of_an_object_is_that_of_what_it_calls(tmp_path: Path, path: list[str]) -> None:
    texts = {"rewarding.py": "import helping\nclass Mine: pass\n", "helping.py": "x = 1\n"}
    digests = []
    for helper in ("x = 1\n", "x = 2\n", "x = 1\n"):
        with imported_anew():
            _write(tmp_path, {**texts, "helping.py": helper})
            digests.append(source_digest(resolve(f"{tmp_path}/rewarding.py:Mine", "reward")))
    assert digests[0] == digests[2] != digests[1]
