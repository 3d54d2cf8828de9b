"""A run submitted to a running cluster from another directory, looked after, stopped, resumed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from prunetune.cli.app import app
from typer.testing import CliRunner

from .ray_nodes import Head

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_ROOT = Path(__file__).resolve().parents[2]
_PRINT = """
import sys

import prunetune

print("imported from", prunetune.__file__, file=sys.stderr)
"""
_SMALLER = ["agent=random", "evaluations=96", "compare.seeds=1", "finalists=1", "recalibration=32"]
_SMALLER += ["finetune.epochs=0", "cluster.evaluators=1", "compare.concurrent=1"]


def _readme(command: str) -> list[str]:
    """What the README says to type, without the address."""
    pattern = rf"^prunetune ({command} .*) --address http://HEAD:8265$"
    (words,) = re.findall(pattern, (_ROOT / "README.md").read_text(), re.M)
    return shlex.split(words)


class _Shell:
    """Types commands on a machine that is not part of the cluster, but knows its token."""

    def __init__(self, head: Head, patch: pytest.MonkeyPatch, home: Path | None = None) -> None:
        self.address = ["--address", head.dashboard]
        self.printed: list[str] = []
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(home or head.home))

    def type(self, *arguments: object, code: int = 0) -> str:
        done = CliRunner().invoke(app, [*map(str, arguments), *self.address])
        self.printed += [done.stdout, done.stderr]
        assert done.exit_code == code, (arguments, done.stdout, done.stderr, done.exception)
        return done.stdout if code == 0 else done.stderr

    def json(self, *arguments: object) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.type(*arguments, "--json"))
        return answer


def test_a_run_is_submitted_stopped_and_resumed(
    ray_head: Head, digits_task: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(_ROOT / "examples", tmp_path / "examples")
    with (tmp_path / "examples" / "my_reward.py").open("a") as file:
        file.write(_PRINT)
    # Another directory than the spec's, on a machine that is not the cluster's.
    monkeypatch.chdir(tmp_path)
    run = ray_head.home / "runs" / "my-reward"
    shell = _Shell(ray_head, monkeypatch)
    submission = [*_readme("submit"), *(f"--set={change}" for change in _SMALLER)]

    submitted = shell.json(*submission)
    assert not submitted["attached"]
    following = subprocess.Popen(
        [sys.executable, "-m", "prunetune", *_readme("logs"), *shell.address],
        env=ray_head.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    attached = shell.json(*submission)
    assert attached["attached"]
    assert attached["name"] == submitted["name"]

    end = time.monotonic() + 120
    while not list(run.glob("evaluations/*.parquet")) and time.monotonic() < end:
        time.sleep(0.1)
    assert shell.json(*_readme("stop"))["status"] == "STOPPED"
    followed, _ = following.communicate(timeout=60)
    shell.printed.append(followed)
    assert following.returncode == 1, "a run that was stopped has not succeeded"
    assert f"The run is in {run}" in followed
    (imported,) = {line for line in followed.splitlines() if line.startswith("imported from")}
    assert "working_dir_files" in imported, "the package that was shipped is the one that runs"
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"

    log = shell.type(*submission, "--follow")
    assert "finished" in log
    state = shell.json(*_readme("status"))
    assert state["status"] == "SUCCEEDED"
    assert state["name"] != submitted["name"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["evaluations"]["asked"] == 2 * 96
    assert {best["reward"].rpartition("/")[2] for best in summary["best"]} == {
        "accuracy",
        "my_reward.py:LeanAgreement",
    }
    assert shell.json(*submission)["status"] == "SUCCEEDED", "nothing runs twice"
    assert shell.type("logs", state["name"]) in log, "what was followed is all that there is"
    assert ray_head.token not in "".join(shell.printed)


def test_without_the_token_one_is_told_where_it_is(
    ray_head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = _Shell(ray_head, monkeypatch, home=tmp_path)
    assert "asks for a token: copy the file ~/.ray/auth_token" in shell.type("logs", "x", code=2)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    refusal = shell.type("logs", "x", code=2)
    assert "does not accept the token of this machine" in refusal
    assert refusal.count("\n") == 1
    assert "0" * 64 not in refusal


def test_a_run_that_is_not_there(ray_head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = _Shell(ray_head, monkeypatch)
    for command in ("status", "logs", "stop"):
        assert "has no job of a run 'nobody'" in shell.type(command, "nobody", code=2)
