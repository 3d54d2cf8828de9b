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
import re
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...cluster.worker import is_lost
from ...errors import RunFolderError
from ...rewards.evaluation.evaluation import Evaluation
from .folder import sync_folder, write_durably
from .locks import hold

_log = logging.getLogger(__name__)

# So many files of one level become one of the next: a million writes make four levels.
_MERGED_FILES = 32

# Level, what makes the name unique, and the checksum of the content: parquet's own checksums leave
# out the footer, where one flipped bit renames a column.
_NAME = re.compile(r"part-(\d+)-[\w-]+-([0-9a-f]{8})\.parquet")
_CORRUPT = ".corrupt"


@dataclass(frozen=True)
class RecordKey:
    """What an evaluation depends on besides its candidate; a record never mixes them up.

    Attributes:
        task: Digest of the network's weights and of the data splits.
        evaluator: Version of the evaluator; changes whenever its numbers do.
        precision: Number format of the forward pass ("fp32", "bf16").
        repair: "none", "quick", "light" or "full".
    """

    task: str
    evaluator: str
    precision: str
    repair: str


_KEY_COLUMNS = [field.name for field in fields(RecordKey)]


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

    def __contains__(self, widths: object) -> bool:
        return isinstance(widths, tuple) and _identity(widths) in self._index

    def get(self, widths: tuple[int, ...]) -> Evaluation | None:
        """The evaluation of a candidate, or ``None`` if there is none yet."""
        found = self._index.get(_identity(widths))
        if isinstance(found, int):
            assert self._loaded is not None
            row = self._loaded.slice(found, 1).to_pylist()[0]
            return Evaluation.from_row({**row, "candidate": widths})
        return found

    def append(self, evaluations: Sequence[Evaluation]) -> None:
        """Keep evaluations; they are durable when this returns.

        Candidates that are there already keep their first evaluation.

        Raises:
            OSError: If they cannot be written (full disk); none of them is kept then.
        """
        fresh: dict[bytes, Evaluation] = {}
        for evaluation in evaluations:
            identity = _identity(evaluation.candidate)
            if identity not in self._index:
                fresh.setdefault(identity, evaluation)
        if not fresh:
            return
        table = _to_table(self.key, list(fresh.values()))
        self._write(table, level=0)
        self._index.update(fresh)
        self._small_files += 1
        if self._small_files >= _MERGED_FILES and not self._is_merging():
            self._small_files = 0
            self._merging = threading.Thread(target=self._merge, daemon=True)
            self._merging.start()

    def table(self) -> pa.Table:
        """All rows of this key on disk, those of other writers included; see `read_record`."""
        return _only(self.key, read_record(self.folder))

    def compact(self) -> None:
        """Merge all small files now instead of in the background."""
        if self._merging is not None:
            self._merging.join()
        self._merge(least=2)

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
        """By identity, rows of ``_loaded`` or what was appended since."""
        with self._explained():
            return self._open()

    def _open(self) -> dict[bytes, int | Evaluation]:
        self._merge(least=2)
        everything, damaged = _read_folder(self.folder)
        for path in damaged:
            _log.warning("The damaged file %s is left out of the record.", path)
            # Out of the way for good, but kept for whoever wants to look into it.
            with contextlib.suppress(FileNotFoundError):
                path.rename(path.with_name(path.name + _CORRUPT))
        table = _only(self.key, everything)
        self._loaded = table.drop_columns(["candidate", *_KEY_COLUMNS]).combine_chunks()
        rows = zip(_identities(table.column("candidate")), itertools.count())
        final = _final(table)
        return dict(itertools.compress(rows, final) if final is not None else rows)

    def _is_merging(self) -> bool:
        return self._merging is not None and self._merging.is_alive()

    def _write(self, table: pa.Table, level: int) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        unique = f"{time.time_ns()}-{os.getpid()}-{next(self._serial)}"
        name = f"part-{level}-{unique}-{zlib.crc32(content):08x}.parquet"
        write_durably(self.folder / name, content)

    def _merge(self, least: int = _MERGED_FILES) -> None:
        """Merge the files of each level that has at least ``least`` small ones into one."""
        try:
            with hold(self.folder / ".merge.lock"):
                level = 0
                while paths := _parts(self.folder, level):
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
            with contextlib.suppress(_DamagedError):
                tables[path] = _read_part(path)
        if len(tables) < 2:
            return
        merged = _unique(_concatenate(list(tables.values())))
        self._write(merged, level)
        for path in tables:
            path.unlink(missing_ok=True)
        sync_folder(self.folder)


def read_record(folder: Path | str) -> pa.Table:
    """Every evaluation in a record's folder, also while a run writes to it.

    Args:
        folder: ``RUN/evaluations``.

    Returns:
        One row per evaluation: the columns of `RecordKey`, ``candidate`` (list of int32),
        ``seconds``, ``error`` (null where there is none), ``measures.NAME``, ``costs.NAME`` and
        ``standard_errors.NAME`` (float64, null where that evaluation lacks it). Damaged files are
        left out with a warning.
    """
    table, damaged = _read_folder(Path(folder))
    for path in damaged:
        _log.warning("The damaged file %s is left out of the record.", path)
    return table


class _DamagedError(Exception):
    """A file that is not, or no longer, part of a record."""


def _read_folder(folder: Path) -> tuple[pa.Table, list[Path]]:
    tables: list[pa.Table] = []
    damaged: list[Path] = []
    seen: set[Path] = set()
    # A merge may replace files while we read; what vanished is in a file that is new since.
    while fresh := [path for path in _parts(folder) if path not in seen]:
        for path in fresh:
            seen.add(path)
            try:
                tables.append(_read_part(path))
            except FileNotFoundError:
                continue
            except _DamagedError:
                damaged.append(path)
    if not tables:
        return _to_table(RecordKey("", "", "", ""), []), damaged
    return _unique(_concatenate(tables)), damaged


def _parts(folder: Path, level: int | None = None) -> list[Path]:
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and level in (None, int(match.group(1))):
            found.append(path)
    return sorted(found, key=lambda path: path.name)


def _read_part(path: Path) -> pa.Table:
    content = path.read_bytes()
    match = _NAME.fullmatch(path.name)
    if match is None or int(match.group(2), 16) != zlib.crc32(content):
        raise _DamagedError(path)
    table = pq.read_table(pa.BufferReader(content))
    # prunetune 0.1.0 knew only candidates that are widths, and named the column so.
    return table.rename_columns(
        ["candidate" if name == "widths" else name for name in table.column_names]
    )


def _to_table(key: RecordKey, evaluations: Sequence[Evaluation]) -> pa.Table:
    rows = [evaluation.to_row() for evaluation in evaluations]
    names = dict.fromkeys(itertools.chain.from_iterable(rows))
    columns: dict[str, pa.Array] = {
        name: pa.array([value] * len(rows), pa.string()).dictionary_encode()
        for name, value in zip(_KEY_COLUMNS, astuple(key), strict=True)
    }
    kinds = {"candidate": pa.list_(pa.int32()), "error": pa.string()}
    for name in {"candidate": None, "seconds": None, "error": None, **names}:
        values = [row.get(name) for row in rows]
        columns[name] = pa.array(values, kinds.get(name, pa.float64()), from_pandas=False)
    return pa.table(columns)


def _concatenate(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="default").unify_dictionaries()


def _only(key: RecordKey, table: pa.Table) -> pa.Table:
    for name, value in zip(_KEY_COLUMNS, astuple(key), strict=True):
        matches = pc.equal(table.column(name), value)
        if not pc.all(matches, min_count=0).as_py():
            table = table.filter(matches)
    return table


def _unique(table: pa.Table) -> pa.Table:
    """One row per key and candidate: the first one that was not lost, if there is any."""
    identities = _identities(table.column("candidate"))
    code = np.zeros(table.num_rows, dtype=np.int64)
    for name in _KEY_COLUMNS:
        column = table.column(name).combine_chunks()
        code = code * (len(column.dictionary) + 1) + column.indices.to_numpy()
    first: dict[object, int] = {}
    keyed: list[Any] = identities
    if code.size and code.min() != code.max():
        keyed = list(zip(identities, code.tolist(), strict=True))
    final = _final(table)
    if final is not None:
        for row in itertools.compress(range(len(keyed)), final):
            first.setdefault(keyed[row], row)
    for row, identity in enumerate(keyed):
        first.setdefault(identity, row)
    if len(first) == table.num_rows:
        return table
    return table.take(pa.array(sorted(first.values()), pa.int64()))


def _final(table: pa.Table) -> list[bool] | None:
    """Which rows are evaluations that were not lost; ``None`` for all, which costs no time."""
    errors = table.column("error")
    if errors.null_count == len(errors):
        return None
    return [not is_lost(error) for error in errors.to_pylist()]


def _identity(widths: tuple[int, ...]) -> bytes:
    return np.asarray(widths, dtype=np.int32).tobytes()


def _identities(column: pa.ChunkedArray) -> list[bytes]:
    """`_identity` of every row, without a Python loop over the widths."""
    identities: list[bytes] = []
    for chunk in column.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
        content = values.tobytes()
        ends = 4 * np.cumsum(chunk.value_lengths().to_numpy(zero_copy_only=False))
        start = 0
        for end in ends.tolist():
            identities.append(content[start:end])
            start = end
    return identities
