"""The example notebook, run from start to end in a kernel of its own."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

_NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "first_search.ipynb"


def _text(cell: Any) -> str:
    """What a cell printed and showed."""
    texts = []
    for output in cell.get("outputs", []):
        texts.append(output.get("text", "") + output.get("data", {}).get("text/plain", ""))
    return "\n".join(texts)


@pytest.mark.ray
@pytest.mark.slow
def test_first_search_runs_from_start_to_end(cache_folder: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient
    notebook = nbformat.read(_NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    began = time.monotonic()
    client(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert time.monotonic() - began < 240
    shown = "\n".join(_text(cell) for cell in notebook.cells if cell.cell_type == "code")
    (dense,) = re.findall(r"^dense accuracy ([\d.]+)", shown, re.M)
    (accuracy,) = re.findall(r"^accuracy ([\d.]+) \(dense", shown, re.M)
    (flops,) = re.findall(r"^FLOPs ([\d.]+) of dense, parameters", shown, re.M)
    assert float(dense) > 0.9 and float(accuracy) > float(dense) - 0.05
    assert float(flops) <= 0.5
    assert re.search(r"Searching \[#{30}\] 96 of 96", shown)
    (page,) = re.findall(r"PosixPath\('(.*index\.html)'\)", shown)
    assert "SmallNet" in Path(page).read_text()
    assert not list(tmp_path.iterdir())
