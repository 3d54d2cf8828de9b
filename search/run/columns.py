"""Parquet files of a run, read as what they must be: known columns, their types, bounded sizes.

Such a file may have been written by another version, damaged by a disk, or made by somebody else.
What is not as it must be is refused here, so that nobody behind need doubt what is in a row.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

__all__ = ["CANDIDATE", "marked", "read_columns"]

CANDIDATE = pa.list_(pa.int32())
"""The type of a column of candidates."""

# Far beyond a run of a million evaluations with hundreds of measures.
_MOST_ROWS = 20_000_000
_MOST_BYTES = 8 * 2**30


def read_columns(
    content: bytes,
    kinds: Mapping[str, pa.DataType],
    optional: tuple[str, ...] = (),
    mark: bytes | None = None,
) -> pa.Table:
    """The table in a Parquet file.

    Args:
        content: Of the file.
        kinds: The columns that it must have, with their types. A ``candidate`` is whole numbers of
            at least 0, and was named ``widths`` by prunetune 0.1.0. Only ``error`` may be null.
        optional: Prefixes of columns of float64 that it may have.
        mark: Under which `marked` has left a checksum; files of older versions have none.

    Returns:
        Those columns; others are left out.

    Raises:
        ValueError: If it is no such table; says why.
    """
    try:
        table = _read(content)
        known = (table.schema.metadata or {}).get(mark) if mark is not None else None
        if known is not None and known != _checksum(table):
            raise ValueError("its content is not what was written")
        names = [_today(name) for name in table.column_names]
        if len(set(names)) < len(names):
            raise ValueError("a column is there twice")
        table = table.rename_columns(names)
        columns = {
            name: table.column(name).cast(kinds.get(name, pa.float64()))
            for name in names
            if name in kinds or name.startswith(optional)
        }
    except (pa.ArrowException, OSError, MemoryError, OverflowError) as error:
        raise ValueError(str(error).strip().partition("\n")[0] or type(error).__name__) from None
    for name in kinds:
        if name not in columns:
            raise ValueError(f"it has no column {name!r}")
        if name != "error" and columns[name].null_count:
            raise ValueError(f"its column {name!r} has empty cells")
    _check_candidates(columns["candidate"])
    return pa.table(columns)


def marked(table: pa.Table, mark: bytes) -> pa.Table:
    """A table whose metadata hold a checksum of its content."""
    metadata = {**(table.schema.metadata or {}), mark: _checksum(table)}
    return table.replace_schema_metadata(metadata)


def _checksum(table: pa.Table) -> bytes:
    """Of names and values; independent of how they lie in memory or in a file."""
    rows = sorted(table.to_pydict().items())
    return f"{zlib.crc32(repr(rows).encode()):08x}".encode()


def _read(content: bytes) -> pa.Table:
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        metadata: Any = file.metadata
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        size = sum(group.total_byte_size for group in groups)
        if metadata.num_rows > _MOST_ROWS or not 0 <= size <= _MOST_BYTES:
            raise ValueError("it claims to be larger than any run")
        return file.read()


def _today(name: str) -> str:
    return "candidate" if name == "widths" else name


def _check_candidates(column: pa.ChunkedArray) -> None:
    for chunk in column.chunks:
        values = chunk.flatten()
        if values.null_count or (len(values) and pc.min(values).as_py() < 0):
            raise ValueError("a candidate is not whole numbers of at least 0")
