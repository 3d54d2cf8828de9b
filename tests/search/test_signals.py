"""Signals that end a run as Ctrl-C does."""

from __future__ import annotations

import os
import signal

import pytest
from prunetune.search.engine.signals import ended_by_signals


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
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
