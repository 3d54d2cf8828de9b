"""Whether the tests notice when a line is wrong.

One after the other, each fault of `_faults.py` is written into a temporary copy of the checkout,
and the files of tests that should catch it run there. Before that they run without a fault, where
they have to pass. Fast tests that need no Ray are enough: this measures the tests of single parts.

    python benchmarks/injected_faults.py

A fault whose line is not there any more, or is there twice, ends the benchmark: the code has moved
on, and so should the fault. With ``--smoke`` two faults are injected.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import hypothesis  # noqa: F401 - imported here once instead of in every process that is forked
import pytest
from _common import parser, print_result, print_table
from _faults import FAULTS, Fault

_ROOT = Path(__file__).resolve().parents[1]
_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", ".mypy_cache", ".ruff_cache", "__pycache__", "build", "runs", "shared"
)
# A fault may make a loop endless; a test that takes so many seconds has caught it.
_SECONDS = 120


class Verdict(NamedTuple):
    """How some tests ended.

    Attributes:
        code: Of pytest: 0 where all passed, 1 where one failed.
        failed: The first test that failed, or nothing.
        printed: What pytest printed.
    """

    code: int
    failed: str
    printed: str


class _First:
    """A plugin of pytest that remembers the first test that failed."""

    def __init__(self) -> None:
        self.failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look at how one test ended."""
        if report.failed and not self.failed:
            self.failed = report.nodeid


def main() -> None:
    """Inject all faults and print a table and one line of JSON."""
    options = parser(__doc__).parse_args()
    faults = FAULTS[:2] if options.smoke else FAULTS
    for fault in faults:
        _with_fault(fault)
    began = time.perf_counter()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkout = folder / "checkout"
        shutil.copytree(_ROOT, checkout, ignore=_NOT_COPIED)
        (folder / "path").mkdir()
        (folder / "path" / "prunetune").symlink_to(checkout)
        _check_tests(folder, faults)
        for fault in faults:
            file = checkout / fault.path
            right = file.read_text()
            file.write_text(_with_fault(fault))
            verdict = _run(folder, fault.tests)
            file.write_text(right)
            caught = verdict.failed if verdict.code == 1 else ""
            rows.append({**fault._asdict(), "code": verdict.code, "caught": caught})
            print(f"{fault.path}: {caught or 'NOT CAUGHT'}", file=sys.stderr, flush=True)
    missed = sum(not row["caught"] for row in rows)
    print_table(
        f"{len(rows)} injected faults, {missed} not caught",
        ["file", "right", "wrong", "caught by"],
        [[row["path"], row["right"], row["wrong"], row["caught"] or "nothing"] for row in rows],
    )
    seconds = time.perf_counter() - began
    print_result("injected_faults", missed=missed, seconds=seconds, rows=rows)


def _with_fault(fault: Fault) -> str:
    """The file's content with the fault in it."""
    text = (_ROOT / fault.path).read_text()
    if text.count(fault.right) != 1:
        raise SystemExit(
            f"{fault.path} has {fault.right!r} {text.count(fault.right)} times; it should be there "
            "once: change the fault in _faults.py."
        )
    return text.replace(fault.right, fault.wrong)


def _check_tests(folder: Path, faults: Sequence[Fault]) -> None:
    """Make sure that the tests pass while nothing is wrong."""
    verdict = _run(folder, sorted({test for fault in faults for test in fault.tests}))
    if verdict.code != 0:
        raise SystemExit(f"Without a fault the tests do not pass:\n{verdict.printed}")


def _run(folder: Path, tests: Sequence[str]) -> Verdict:
    """Run files of tests in a fork of this process, which has imported what takes long."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_test, args=(folder, tests, sender))
    process.start()
    sender.close()
    try:
        verdict: Verdict = receiver.recv()
    except EOFError:
        verdict = Verdict(-1, "", "The process of the tests died.")
    process.join()
    return verdict


def _test(folder: Path, tests: Sequence[str], sender: Connection) -> None:
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] == "prunetune"]:
        del sys.modules[name]
    sys.path.insert(0, str(folder / "path"))
    os.environ["PYTHONPATH"] = str(folder / "path")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.chdir(folder / "checkout")
    first = _First()
    output = folder / "output"
    arguments = ["-x", "-q", "-m", "not slow and not ray", "-p", "no:cacheprovider"]
    arguments += [f"--timeout={_SECONDS}", *(f"tests/{test}" for test in tests)]
    with output.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        code = int(pytest.main(arguments, plugins=[first]))
    sender.send(Verdict(code, first.failed, output.read_text()[-5000:]))
    sender.close()


if __name__ == "__main__":
    main()
