"""The driver's life, on which the processes of its run depend.

Ray ends them when their driver has died, seconds later. Until then an evaluator would begin what
waits for it, which a resumed run evaluates, too. So processes on the driver's machine look whether
it lives, and end by themselves when it does not; those on other machines are Ray's to end.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Lifeline"]

_LOOK_SECONDS = 0.5
_STATE, _STARTED = 0, 19  # of what follows the name in /proc/PID/stat
_held: set[Lifeline] = set()


@dataclass(frozen=True)
class Lifeline:
    """The life of one process, known to others; it pickles.

    Attributes:
        machine: Where the process is; empty where nobody can tell, and it counts as alive.
        pid: Its number there.
        started: When it began, in ticks since the machine did: numbers are used again.
    """

    machine: str
    pid: int
    started: str

    @classmethod
    def of_this_process(cls) -> Lifeline:
        """The life of the process that calls."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Lifeline:
        """The life of a process of this machine."""
        return cls(_machine(), pid, _field(pid, _STARTED))

    @property
    def is_cut(self) -> bool:
        """Whether the process is known to have died."""
        if not self.machine or self.machine != _machine():
            return False
        state = _field(self.pid, _STATE)
        return state in ("", "Z", "X") or _field(self.pid, _STARTED) != self.started

    def depend(self) -> None:
        """End this process within a second of the other's end, whatever it is doing."""
        if self in _held or not self.machine or self.machine != _machine():
            return
        _held.add(self)
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def end_if_cut(self) -> None:
        """End this process now if the other has died."""
        if self.is_cut:
            # Nobody waits for anything that could still be put in order.
            os._exit(1)

    def _watch(self) -> None:
        while True:
            self.end_if_cut()
            time.sleep(_LOOK_SECONDS)


def _machine() -> str:
    """What only processes have in common that see each other; empty without ``/proc``."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _field(pid: int, number: int) -> str:
    """A field of a process's state; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[number]
    except (OSError, IndexError):
        return ""
