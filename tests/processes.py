"""The command line in a process of its own, which can be watched, signalled and killed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

__all__ = ["Command"]


class Command:
    """A ``prunetune`` command that is running; a context manager that kills it in the end.

    Args:
        words: Of the command line.
        terminal: Whether it writes to a terminal.
    """

    def __init__(self, *words: object, terminal: bool = False) -> None:
        self._said: list[bytes] = []
        if terminal:
            reader, writer = pty.openpty()
        else:
            reader, writer = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prunetune", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
            start_new_session=True,
        )
        os.close(writer)
        self._reader = threading.Thread(target=self._read, args=(reader,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has said so far."""
        return b"".join(self._said).decode(errors="replace")

    def wait_for(self, text: str, seconds: float) -> None:
        """Wait until it has said something."""
        self.wait_until(lambda: text in self.output, seconds)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for anything, while it runs."""
        end = time.monotonic() + seconds
        while not condition():
            assert self._process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.05)

    def wait_for_others(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for what does not need it to run."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.1)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self, seconds: float) -> int:
        """Wait for its end; its exit code."""
        code = self._process.wait(seconds)
        self._reader.join(5)
        return code

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _read(self, reader: int) -> None:
        try:
            while piece := os.read(reader, 65536):
                self._said.append(piece)
        except OSError:  # how a terminal ends
            pass
        finally:
            os.close(reader)
