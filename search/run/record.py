"""The evaluation record: every evaluation of a run, on disk before anyone uses it.

A folder of parquet files that are written once and never changed. Each write adds a small file;
a thread merges small files into larger ones, level by level, so that a million evaluations are a
few files. A row is unique by its key and its candidate: rows that are there twice (after a crash
between a merge and the removal of what was merged) are equal, and count once.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import RunFolderError
from ...models.space import Candidate
from ...rewards.evaluation.evaluation import Evaluation
from .files import sync_folder, write_durably
from .locks import hold, take
from .record_tables import (
    KEY_COLUMNS,
    DamagedError,
    RecordKey,
    candidate_id,
    candidate_ids,
    concatenate,
    file_name,
    final_rows,
    only_key,
    part_files,
    read_folder,
    read_part,
    read_record,
    to_table,
    unique_rows,
)

__all__ = ["CoordinatorRecord", "EvaluationRecord", "RecordKey", "read_record"]

_log = logging.getLogger(__name__)

# So many files of one level become one of the next: a million writes make four levels.
_MERGED_FILES = 32

# After its driver was killed a coordinator lives on until Ray notices.
_PATIENCE_SECONDS = 120.0

_CORRUPT = ".corrupt"


class EvaluationRecord:
    """The evaluations of one key in a folder; an `EvaluationStore`.

    Looking up is a dictionary access. The folder is read when that is first needed; pickling
    carries only the folder and the key. Several processes may write to one folder.

    An evaluation that was lost (`prunetune.cluster.worker.is_lost`) is not found again once the
    record is reopened: its candidate gets another chance, and a second evaluation replaces it.

    Args:
        folder: ``RUN/evaluations``; made if it is missing.
        key: Rows of other keys are kept, but not seen.

    Raises:
        RunFolderError: If the folder cannot be made, or later cannot be read.
    """

    def __init__(self, folder: Path | str, key: RecordKey) -> None:
        self.folder = Path(folder).absolute()
        self.key = key
        self._loaded: pa.Table | None = None
        self._serial = itertools.count()
        self._small_files = 0
        self._merging: threading.Thread | None = None
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)

    def __reduce__(self) -> tuple[Any, tuple[Path, RecordKey]]:
        return EvaluationRecord, (self.folder, self.key)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, candidate: object) -> bool:
        return isinstance(candidate, tuple) and candidate_id(candidate) in self._index

    def get(self, candidate: Candidate) -> Evaluation | None:
        """The evaluation of a candidate, or ``None`` if there is none yet."""
        found = self._index.get(candidate_id(candidate))
        if isinstance(found, int):
            assert self._loaded is not None
            row = self._loaded.slice(found, 1).to_pylist()[0]
            return Evaluation.from_row({**row, "candidate": candidate})
        return found

    def append(self, evaluations: Sequence[Evaluation]) -> None:
        """Keep evaluations; they are durable when this returns.

        Candidates that are there already keep their first evaluation.

        Raises:
            OSError: If they cannot be written (full disk); none of them is kept then.
        """
        fresh: dict[bytes, Evaluation] = {}
        for evaluation in evaluations:
            key = candidate_id(evaluation.candidate)
            if key not in self._index:
                fresh.setdefault(key, evaluation)
        if not fresh:
            return
        table = to_table(self.key, list(fresh.values()))
        self._write(table, level=0)
        self._index.update(fresh)
        self._small_files += 1
        if self._small_files >= _MERGED_FILES and not self._is_merging():
            self._small_files = 0
            self._merging = threading.Thread(target=self._merge, daemon=True)
            self._merging.start()

    def table(self) -> pa.Table:
        """All rows of this key on disk, those of other writers included; see `read_record`."""
        return only_key(self.key, read_record(self.folder))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFolderError(
                f"The evaluations in {self.folder} cannot be opened ({error.strerror or error}); "
                "make the folder readable and writable."
            ) from error

    @cached_property
    def _index(self) -> dict[bytes, int | Evaluation]:
        """By `candidate_id`, rows of ``_loaded`` or what was appended since."""
        with self._explained():
            return self._open()

    def _open(self) -> dict[bytes, int | Evaluation]:
        self._merge(least=2)
        everything, damaged = read_folder(self.folder)
        for path in damaged:
            _log.warning("The damaged file %s is left out of the record.", path)
            # Out of the way for good, but kept for whoever wants to look into it.
            with contextlib.suppress(FileNotFoundError):
                path.rename(path.with_name(path.name + _CORRUPT))
        table = only_key(self.key, everything)
        self._loaded = table.drop_columns(["candidate", *KEY_COLUMNS]).combine_chunks()
        rows = zip(candidate_ids(table.column("candidate")), itertools.count())
        final = final_rows(table)
        return dict(itertools.compress(rows, final) if final is not None else rows)

    def _is_merging(self) -> bool:
        return self._merging is not None and self._merging.is_alive()

    def _write(self, table: pa.Table, level: int) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        unique = f"{time.time_ns()}-{os.getpid()}-{next(self._serial)}"
        write_durably(self.folder / file_name(content, level, unique), content)

    def _merge(self, least: int = _MERGED_FILES) -> None:
        """Merge the files of each level that has at least ``least`` small ones into one."""
        try:
            with hold(self.folder / ".merge.lock"):
                level = 0
                while paths := part_files(self.folder, level):
                    if len(paths) >= (least if level == 0 else _MERGED_FILES):
                        self._merge_files(paths, level + 1)
                    level += 1
        except RunFolderError:
            return  # another process merges
        except OSError as error:
            # Nothing is lost: the small files are still there, and the next merge takes them.
            _log.warning("Evaluation files in %s could not be merged: %s", self.folder, error)

    def _merge_files(self, paths: Sequence[Path], level: int) -> None:
        tables: dict[Path, pa.Table] = {}
        for path in paths:
            with contextlib.suppress(DamagedError):
                tables[path] = read_part(path)
        if len(tables) < 2:
            return
        merged = unique_rows(concatenate(list(tables.values())))
        self._write(merged, level)
        for path in tables:
            path.unlink(missing_ok=True)
        sync_folder(self.folder)


class CoordinatorRecord(EvaluationRecord):
    """A record as an evaluator pool opens it: its copies in other processes wait for each other.

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


def _open_alone(folder: Path, key: RecordKey) -> CoordinatorRecord:
    lock = take(folder / ".coordinator.lock", _PATIENCE_SECONDS)
    record = CoordinatorRecord(folder, key)
    record._lock = lock
    return record
