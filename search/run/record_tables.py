"""The tables of an evaluation record: one row per evaluation, in files that check themselves."""

from __future__ import annotations

import itertools
import logging
import re
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...cluster.worker import is_lost
from ...errors import RunFolderError
from ...models.space import Candidate
from ...rewards.evaluation.evaluation import COLUMN_PREFIXES, Evaluation
from .columns import CANDIDATE, read_columns
from .files import read_content

__all__ = [
    "KEY_COLUMNS",
    "DamagedError",
    "RecordKey",
    "candidate_id",
    "candidate_ids",
    "concatenate",
    "file_name",
    "final_rows",
    "only_key",
    "part_files",
    "read_folder",
    "read_part",
    "read_record",
    "to_table",
    "unique_rows",
]

_log = logging.getLogger(__name__)

# Level, what makes the name unique, and the checksum of the content: parquet's own checksums leave
# out the footer, where one flipped bit renames a column.
_NAME = re.compile(r"part-(\d+)-[\w-]+-([0-9a-f]{8})\.parquet")


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


KEY_COLUMNS = [field.name for field in fields(RecordKey)]
_KINDS = {
    **{name: pa.dictionary(pa.int32(), pa.string()) for name in KEY_COLUMNS},
    "candidate": CANDIDATE,
    "seconds": pa.float64(),
    "error": pa.string(),
}


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
    table, damaged = read_folder(Path(folder))
    for path in damaged:
        _log.warning("The damaged file %s is left out of the record.", path)
    return table


class DamagedError(Exception):
    """A file that is not, or no longer, part of a record."""


def read_folder(folder: Path) -> tuple[pa.Table, list[Path]]:
    """Every evaluation of a folder, as `read_record` has them, and its damaged files."""
    tables: list[pa.Table] = []
    damaged: list[Path] = []
    seen: set[Path] = set()
    # A merge may replace files while we read; what vanished is in a file that is new since.
    while fresh := [path for path in part_files(folder) if path not in seen]:
        for path in fresh:
            seen.add(path)
            try:
                tables.append(read_part(path))
            except FileNotFoundError:
                continue
            except DamagedError:
                damaged.append(path)
    if not tables:
        return to_table(RecordKey("", "", "", ""), []), damaged
    return unique_rows(concatenate(tables)), damaged


def file_name(content: bytes, level: int, unique: str) -> str:
    """The name of a file of a record, which holds the checksum of its content.

    Args:
        content: Of the file.
        level: How often its rows were merged.
        unique: Letters, digits and ``-`` that no other file of the folder has.
    """
    return f"part-{level}-{unique}-{zlib.crc32(content):08x}.parquet"


def part_files(folder: Path, level: int | None = None) -> list[Path]:
    """The files of a record, of one level or of all, by name."""
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and level in (None, int(match.group(1))):
            found.append(path)
    return sorted(found, key=lambda path: path.name)


def read_part(path: Path) -> pa.Table:
    """One file of a record.

    Raises:
        FileNotFoundError: If it was merged into another one meanwhile.
        DamagedError: If its content is not what was written.
    """
    try:
        content = read_content(path)
    except RunFolderError as error:
        raise DamagedError(path) from error
    match = _NAME.fullmatch(path.name)
    if match is None or int(match.group(2), 16) != zlib.crc32(content):
        raise DamagedError(path)
    try:
        return read_columns(content, _KINDS, COLUMN_PREFIXES)
    except ValueError as error:
        raise DamagedError(path) from error


def to_table(key: RecordKey, evaluations: Sequence[Evaluation]) -> pa.Table:
    """Evaluations of one key as rows; see `read_record` for the columns."""
    rows = [evaluation.to_row() for evaluation in evaluations]
    names = dict.fromkeys(itertools.chain.from_iterable(rows))
    columns: dict[str, pa.Array] = {
        name: pa.array([value] * len(rows), pa.string()).dictionary_encode()
        for name, value in zip(KEY_COLUMNS, astuple(key), strict=True)
    }
    for name in {"candidate": None, "seconds": None, "error": None, **names}:
        values = [row.get(name) for row in rows]
        columns[name] = pa.array(values, _KINDS.get(name, pa.float64()), from_pandas=False)
    return pa.table(columns)


def concatenate(tables: Sequence[pa.Table]) -> pa.Table:
    """All rows of tables that need not have the same measures and costs."""
    return pa.concat_tables(tables, promote_options="default").unify_dictionaries()


def only_key(key: RecordKey, table: pa.Table) -> pa.Table:
    """The rows of one key."""
    for name, value in zip(KEY_COLUMNS, astuple(key), strict=True):
        matches = pc.equal(table.column(name), value)
        if not pc.all(matches, min_count=0).as_py():
            table = table.filter(matches)
    return table


def unique_rows(table: pa.Table) -> pa.Table:
    """One row per key and candidate: the first one that was not lost, if there is any."""
    ids = candidate_ids(table.column("candidate"))
    code = np.zeros(table.num_rows, dtype=np.int64)
    for name in KEY_COLUMNS:
        column = table.column(name).combine_chunks()
        code = code * (len(column.dictionary) + 1) + column.indices.to_numpy()
    first: dict[object, int] = {}
    keyed: list[Any] = ids
    if code.size and code.min() != code.max():
        keyed = list(zip(ids, code.tolist(), strict=True))
    final = final_rows(table)
    if final is not None:
        for row in itertools.compress(range(len(keyed)), final):
            first.setdefault(keyed[row], row)
    for row, each in enumerate(keyed):
        first.setdefault(each, row)
    if len(first) == table.num_rows:
        return table
    return table.take(pa.array(sorted(first.values()), pa.int64()))


def final_rows(table: pa.Table) -> list[bool] | None:
    """Which rows are evaluations that were not lost; ``None`` for all, which costs no time."""
    errors = table.column("error")
    if errors.null_count == len(errors):
        return None
    return [not is_lost(error) for error in errors.to_pylist()]


def candidate_id(candidate: Candidate) -> bytes:
    """What tells a candidate from others of its search space."""
    return np.asarray(candidate, dtype=np.int32).tobytes()


def candidate_ids(column: pa.ChunkedArray) -> list[bytes]:
    """`candidate_id` of every row of the column ``candidate``, without a loop over them."""
    ids: list[bytes] = []
    for chunk in column.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
        content = values.tobytes()
        ends = 4 * np.cumsum(chunk.value_lengths().to_numpy(zero_copy_only=False))
        start = 0
        for end in ends.tolist():
            ids.append(content[start:end])
            start = end
    return ids
