"""The guide, done: its files written, its commands typed, its snippets run, page by page."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from prunetune._registry import resolve
from prunetune.search.spec.reading import load_spec

from .pages import Block, blocks, check_words, commands

_GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guide"
_FIRST = _GUIDE / "get-started.md"
# Nothing is run of a page about clusters; tests/cluster has them.
_PAGES = sorted(page for page in _GUIDE.glob("*.md") if page.name not in ("README.md",))
_RUN = [page for page in _PAGES if any(commands(page)) and page != _FIRST]
# The same commands, with fewer candidates and less training.
_SMALLER = ["evaluations=24", "compare.seeds=1", "finalists=1", "finetune.epochs=0"]
_SMALLER += ["task.validation=200", "task.training.epochs=10"]


def _name(page: Path) -> str:
    return page.stem


def _write_files(page: Path, folder: Path) -> list[Path]:
    written = []
    for block in blocks(page):
        if block.file is not None:
            written.append(folder / block.file)
            written[-1].write_text(block.text)
    return written


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_files_can_be_read(page: Path, tmp_path: Path) -> None:
    files = _write_files(page, tmp_path)
    for file in files:
        if file.suffix == ".yaml":
            load_spec(file)
        else:
            ast.parse(file.read_text())
    shown = [block for block in blocks(page) if block.language == "yaml"]
    assert all(block.file is not None for block in shown)


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_commands_exist(page: Path, tmp_path: Path) -> None:
    for words in commands(page):
        check_words(words)
    # Commands inside sentences and indented blocks, as far as they are whole.
    for text in re.findall(r"`(prunetune [^`]+)`", page.read_text()):
        check_words(shlex.split(text)[1:])


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_overrides_that_are_mentioned_work(page: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("task: {model: digits-net}\nbudgets: {flops: 0.5}\n")
    for line in page.read_text().splitlines():
        if "finetune" not in line:
            load_spec(spec, re.findall(r"--set (\S+=[^`\s]+)", line))


def test_names_in_the_examples_of_ones_own_lead_somewhere(tmp_path: Path) -> None:
    for page in _PAGES:
        _write_files(page, tmp_path)
    references = re.findall(r"\"?(\w+\.py:\w+)", "".join(f.read_text() for f in tmp_path.iterdir()))
    assert len(set(references)) >= 5
    for reference in set(references):
        assert resolve(f"{tmp_path}/{reference}", "object")


def _do(block: Block, folder: Path) -> None:
    if block.file is not None:
        (folder / block.file).write_text(block.text)
    elif block.language == "python":
        _call([sys.executable, "-c", block.text], folder)
    elif block.language == "bash":
        for words in map(shlex.split, block.lines):
            # Installing is test_packaging.py's part, and the quickstart is test_readme.py's.
            if words[0] == "prunetune" and words[1] != "quickstart":
                _call([sys.executable, "-m", *_smaller(words)], folder)


def _smaller(words: list[str]) -> list[str]:
    if words[1] not in ("search", "compare"):
        return words
    # What the page says itself comes last.
    return [*words[:3], *(word for each in _SMALLER for word in ("--set", each)), *words[3:]]


def _call(words: list[str], folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, (words, done.stderr[-3000:])


@pytest.fixture(scope="module")
def workshop(cache_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the first page was followed; all others go on from there."""
    folder = tmp_path_factory.mktemp("guide")
    for block in blocks(_FIRST):
        _do(block, folder)
    return folder


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_the_first_page_leads_to_a_network(workshop: Path) -> None:
    assert (workshop / "runs" / "digits" / "report" / "index.html").exists()
    assert list((workshop / "runs" / "digits" / "best").iterdir())


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", _RUN, ids=_name)
def test_a_page_can_be_followed(page: Path, workshop: Path) -> None:
    for block in blocks(page):
        _do(block, workshop)
