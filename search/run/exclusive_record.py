"""The record of a run as its evaluator pool opens it: by one coordinator at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

from .locks import take
from .record import EvaluationRecord, RecordKey

__all__ = ["RunRecord"]

# After its driver was killed a coordinator lives on until Ray notices.
_PATIENCE_SECONDS = 120.0


class RunRecord(EvaluationRecord):
    """A record whose copies in other processes wait for each other.

    The coordinator of a driver that was killed may still be writing when the run is resumed. The
    new one begins, and reads what there is, once the old one is dead; otherwise both might
    evaluate the same candidate.

    Args:
        folder: ``RUN/evaluations``.
        key: See `EvaluationRecord`.
    """

    _lock: TextIO | None = None

    def __reduce__(self) -> tuple[Any, tuple[Path, RecordKey]]:
        return _open_alone, (self.folder, self.key)


def _open_alone(folder: Path, key: RecordKey) -> RunRecord:
    lock = take(folder / ".coordinator.lock", _PATIENCE_SECONDS)
    record = RunRecord(folder, key)
    record._lock = lock
    return record
