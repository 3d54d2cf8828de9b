"""Signals that ask a run to end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["ended_by_signals"]

_ASKING = ("SIGTERM", "SIGHUP")


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end what runs inside as Ctrl-C does.

    A stopped job or a closed terminal then leaves a run behind that says it was interrupted. Only
    the main thread can handle signals; elsewhere, and for those that are ignored (``nohup``),
    nothing changes.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in _ASKING:
            number = getattr(signal, name, None)  # no SIGHUP on Windows
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start background jobs
        raise KeyboardInterrupt
    # Tune stops in an orderly way on the first SIGINT, which a plain exception would not let it do.
    signal.raise_signal(signal.SIGINT)
