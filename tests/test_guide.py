"""The guide, done: its files written, its commands typed, its snippets run, page by page."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from prunetune._references import resolve
from prunetune.search.spec.reading import load_spec

from .commands import invoke
from .pages import Block, blocks, check_words, commands

_GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guide"
_FIRST = _GUIDE / "get-started.md"
# Nothing is run of a page about clusters; tests/cluster has them.
_PAGES = sorted(page for page in _GUIDE.glob("*.md") if page.name not in ("README.md",))
_RUN = [page for page in _PAGES if any(commands(page)) and page != _FIRST]
# The same commands, with fewer candidates and less training.
_SMALLER = ["evaluations=40", "compare.seeds=1", "finalists=1", "finetune.epochs=0"]
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


def _do(block: Block) -> None:
    """Do what a block says, in the working directory."""
    if block.file is not None:
        Path(block.file).write_text(block.text)
    elif block.language == "python":
        exec(compile(block.text, "<snippet>", "exec"), {"__name__": "__main__"})
    elif block.language == "bash":
        for words in map(shlex.split, block.lines):
            # Installing is test_packaging.py's part, and the quickstart is test_readme.py's.
            if words[0] == "prunetune" and words[1] != "quickstart":
                result = invoke(*_smaller(words[1:]))
                assert result.exit_code == 0, (words, result.output, result.exception)
            elif words[0] == "python":
                runpy.run_path(words[1], run_name="__main__")


def _smaller(words: list[str]) -> list[str]:
    if words[0] not in ("search", "compare"):
        return words
    # What the page says itself comes last.
    return [*words[:2], *(word for each in _SMALLER for word in ("--set", each)), *words[2:]]


@contextmanager
def _in(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        yield


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """One Ray for all pages: every command stays with it instead of starting its own."""
    started = not ray.is_initialized()
    if started:
        options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init(num_cpus=2, **options)
    yield
    if started:
        ray.shutdown()


@pytest.fixture(scope="module")
def workshop(one_ray: None, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the first page was followed; all others go on from there."""
    folder = tmp_path_factory.mktemp("guide")
    with _in(folder):
        for block in blocks(_FIRST):
            _do(block)
    return folder


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_the_first_page_leads_to_a_network(workshop: Path) -> None:
    run = workshop / "runs" / "digits"
    assert (run / "report" / "index.html").exists()
    assert list((run / "best").iterdir())
    explained = (_GUIDE.parent / "reference" / "run-folder.md").read_text()
    for entry in run.iterdir():
        assert f"`{entry.name}" in explained, f"{entry.name} is not explained"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", _RUN, ids=_name)
def test_a_page_can_be_followed(page: Path, workshop: Path) -> None:
    with _in(workshop):
        for block in blocks(page):
            _do(block)
