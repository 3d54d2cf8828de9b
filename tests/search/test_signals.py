"""Signals that end a run as Ctrl-C does: once, in every phase, within seconds."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import yaml
from prunetune.search.engine.progress import ReportProgress
from prunetune.search.engine.signals import ended_by_signals, ended_in_order, remind
from prunetune.search.run.folder import RunFolder
from prunetune.search.run.summary import read_summary

from ..processes import Command

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


@posix
@pytest.mark.parametrize("interrupt", [signal.default_int_handler, signal.SIG_IGN])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_can_be_asked_to_end_even_where_ctrl_c_is_ignored(
    interrupt: signal.Handlers, number: signal.Signals
) -> None:
    # Shells let background jobs ignore SIGINT.
    before = signal.signal(signal.SIGINT, interrupt)
    handler = signal.signal(number, signal.SIG_DFL)  # under nohup SIGHUP is ignored
    try:
        with pytest.raises(KeyboardInterrupt), ended_by_signals():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(number, handler)


@posix
def test_whoever_asks_twice_is_heard_once() -> None:
    put_away = False
    with pytest.raises(KeyboardInterrupt), ended_by_signals():
        # As Ray does when it is started.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
        with ended_by_signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)
                put_away = True
    assert put_away


@posix
def test_what_was_asked_before_tune_listened_is_said_again() -> None:
    heard = []
    with ended_by_signals(), ended_in_order():
        remind()
        with pytest.raises(KeyboardInterrupt):
            # Tune is not there yet, and whatever runs may swallow what this raises.
            os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGUSR1, lambda *_: heard.append("in order"))
        ReportProgress().on_step_end(0, [])
    remind()
    assert heard == ["in order"]


@posix
def test_what_ends_in_order_leaves_no_handler_behind() -> None:
    heard = []
    with ended_by_signals():
        ours = signal.getsignal(signal.SIGINT)
        with ended_in_order():
            # As Ray Tune does.
            signal.signal(signal.SIGUSR1, lambda *_: heard.append("in order"))
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == ["in order"]
        assert signal.getsignal(signal.SIGINT) == ours


def _spec(folder: Path, **values: object) -> Path:
    path = folder / "spec.yaml"
    spec = {
        "task": {"model": "digits-net"},
        "budgets": {"flops": 0.5},
        "agent": {"name": "random", "parameters": {"candidates": 4}},
        "measures": ["accuracy"],
        "finalists": 1,
        **values,
    }
    path.write_text(yaml.safe_dump(spec))
    return path


@posix
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("phase", "evaluations", "epochs"),
    [("evaluations, best", 100_000, 0), ("Fine-tuning the best", 4, 10_000)],
)
def test_every_phase_ends_within_seconds_and_is_resumable(
    tmp_path: Path,
    cache_folder: Path,
    number: signal.Signals,
    phase: str,
    evaluations: int,
    epochs: int,
) -> None:
    spec = _spec(tmp_path, evaluations=evaluations, finetune={"epochs": epochs})
    with Command("search", spec, "--output", tmp_path / "run") as command:
        command.wait_for(phase, 240)
        time.sleep(0.5)
        command.send(number)
        command.send(number)
        # What holds is far less; the machine of the tests may be busy.
        assert command.end(60) == 130
    assert "Traceback" not in command.output
    assert "prunetune resume" in command.output
    summary = read_summary(RunFolder.open(tmp_path / "run"))
    assert summary is not None and summary.status == "interrupted"
    if epochs:
        # It is repaired and delivered already.
        (best,) = summary.best
        assert best.artifact is not None and best.missing is not None
        assert (tmp_path / "run" / best.artifact / "pruning.json").is_file()


@posix
@pytest.mark.slow
def test_a_closed_terminal_gets_its_cursor_back(tmp_path: Path, cache_folder: Path) -> None:
    spec = _spec(tmp_path, evaluations=100_000, finetune={"epochs": 0})
    with Command("search", spec, "--output", tmp_path / "run", terminal=True) as command:
        command.wait_for("Searching", 240)
        command.send(signal.SIGHUP)
        assert command.end(60) == 130
    hidden, shown = command.output.rfind("\x1b[?25l"), command.output.rfind("\x1b[?25h")
    assert 0 <= hidden < shown
