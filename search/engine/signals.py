"""Signals that ask a run to end: once, in order, and within seconds."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["ended_by_signals", "ended_in_order", "remind"]

_ASKING = ("SIGINT", "SIGTERM", "SIGHUP")
# Whoever asks again later than this does not want to wait for order.
_PATIENCE_SECONDS = 10.0


class _Ending:
    """What this process knows of having been asked to end."""

    def __init__(self) -> None:
        self.asked_at: float | None = None
        self.in_order = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        now = time.monotonic()
        if self.asked_at is not None and now - self.asked_at < _PATIENCE_SECONDS:
            # It is on its way; a second exception would break what is being put away.
            return
        first, self.asked_at = self.asked_at is None, now
        if first and self.in_order:
            signal.raise_signal(signal.SIGUSR1)
        else:
            raise KeyboardInterrupt


_ending: _Ending | None = None


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGINT (Ctrl-C), SIGTERM and SIGHUP end what runs inside by one KeyboardInterrupt.

    A stopped job or a closed terminal then leaves a run behind that says it was interrupted.
    Further signals are ignored for ten seconds, in which everything is put away. Only the main
    thread can handle signals; elsewhere, and for those that are ignored (``nohup``, jobs in the
    background), nothing changes. Inside another one it takes back the signals that were taken
    meanwhile: Ray's ``init`` has SIGTERM end the process at once.
    """
    global _ending
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _ending is not None:
        _listen(_ending)
        yield
        return
    _ending = _Ending()
    before = _listen(_ending)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _ending = None


def _listen(ending: _Ending) -> dict[signal.Signals, Any]:
    """Take over the signals that are not ignored; returns the handlers before."""
    before = {}
    for name in _ASKING:
        number = getattr(signal, name, None)  # no SIGHUP on Windows
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, ending.ask)
    return before


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Let Ray Tune, which runs inside, stop its trials when `ended_by_signals` is asked to end.

    Tune does so on SIGUSR1. Its handler of SIGINT is not needed then, and it would stay when Tune
    has ended: the next Ctrl-C would do nothing.
    """
    if _ending is None or not hasattr(signal, "SIGUSR1"):
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    _ending.in_order = True
    # Until Tune has its own.
    signal.signal(signal.SIGUSR1, _interrupt)
    try:
        yield
    finally:
        _ending.in_order = False
        for number, handler in handlers.items():
            signal.signal(number, handler)


def remind() -> None:
    """Say again that the run was asked to end, from inside of what `ended_in_order` surrounds.

    What was asked while Tune began may have been lost: an exception that is raised where Python
    can only print it, or before Tune listens.
    """
    if _ending is not None and _ending.in_order and _ending.asked_at is not None:
        signal.raise_signal(signal.SIGUSR1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
