"""The reference says what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from prunetune.search.run.folder import RunFolder
from prunetune.search.spec.model import SearchSpec

_DOCS = Path(__file__).resolve().parents[1] / "docs"
_PAGES = sorted((_DOCS / "reference").glob("*.md"))


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The script that writes the pages."""
    spec = importlib.util.spec_from_file_location("generate_reference", _DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.stem)
def test_pages_are_up_to_date(page: Path, generate: ModuleType) -> None:
    text = page.read_text()
    assert generate.render(text) == text, "run `python docs/generate.py`"


def test_every_key_of_a_spec_is_explained(generate: ModuleType) -> None:
    rows = [line for line in generate.spec_keys().splitlines() if line.startswith("| `")]
    assert len(rows) > len(SearchSpec.model_fields)
    for row in rows:
        assert row.split(" | ")[-1].strip(" |"), row


def test_everything_of_a_new_run_is_explained(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {"name": "x"})
    text = (_DOCS / "reference" / "run-folder.md").read_text()
    for entry in run.path.iterdir():
        assert f"`{entry.name}`" in text, entry.name
