"""Images in Parquet files, in the layout of Hugging Face data sets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import DataError
from .encoded import EncodedFiles, check_data_folder
from .source import Indices

__all__ = ["ParquetFiles", "parquet_class_names", "parquet_files"]

_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels", "fine_label")


class ParquetFiles(EncodedFiles):
    """Images of several Parquet files, one after the other.

    Only labels are kept in memory; what is asked for is read by row groups.

    Args:
        files: The files, in order.

    Raises:
        DataError: If a file is corrupt or lacks a column, or there is no row.
    """

    def __init__(self, files: list[Path]) -> None:
        self._groups: list[tuple[Path, int, str]] = []
        starts = [0]
        labels = []
        for path in files:
            with _opened(path) as file:
                image, label = _columns(file.schema_arrow, path)
                labels.append(_read_labels(file, label, path))
                for group in range(file.metadata.num_row_groups):
                    self._groups.append((path, group, image))
                    starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
        self._starts = np.array(starts)
        if not self._starts[-1]:
            raise DataError(f"{files[0]} has no rows; give Parquet files with images in them.")
        super().__init__(files[0].parent, np.concatenate(labels))

    def read(self, indices: Indices) -> Iterator[tuple[int, bytes, str]]:
        """The images at ``indices``, row group by row group; empty where a row has none."""
        groups = self._group_of(indices)
        for group in np.unique(groups):
            places = np.flatnonzero(groups == group)
            rows = np.asarray(indices)[places] - self._starts[group]
            encoded = self._encoded(group, rows)
            for place, row, image in zip(places.tolist(), rows, encoded, strict=True):
                yield place, image, self._name(group, row)

    def name(self, index: int) -> str:
        """The row and the file of an image."""
        group = int(self._group_of(np.array([index]))[0])
        return self._name(group, index - int(self._starts[group]))

    def paths(self) -> list[Path]:
        """The files, in order."""
        return list(dict.fromkeys(path for path, _, _ in self._groups))

    def _group_of(self, indices: Indices) -> Indices:
        return np.searchsorted(self._starts, indices, side="right") - 1

    def _encoded(self, group: int, rows: Indices) -> list[bytes]:
        path, row_group, column = self._groups[group]
        with _opened(path) as file:
            try:
                table = file.read_row_group(row_group, columns=[f"{column}.bytes"])
            except (pa.ArrowException, OSError) as error:
                raise _corrupt(path, error) from error
        struct = table.column(column).combine_chunks()
        return [cell or b"" for cell in struct.field("bytes").take(pa.array(rows)).to_pylist()]

    def _name(self, group: int, row: int) -> str:
        path = self._groups[group][0]
        first_of_file = next(i for i, (other, _, _) in enumerate(self._groups) if other == path)
        offset = self._starts[group] - self._starts[first_of_file]
        return f"Row {offset + row} of {path}"


def parquet_files(root: Path, split: str) -> ParquetFiles:
    """The images of ``root/SPLIT*.parquet`` (or in a folder ``root/data``), in order of name.

    Args:
        root: Folder of the Parquet files.
        split: ``train`` or ``test``; ``validation`` files count as test where there are no others.

    Raises:
        DataError: If the folder or the split is missing, or a file is corrupt or empty.
    """
    check_data_folder(root)
    names = ("test", "validation", "valid", "val") if split == "test" else (split,)
    for name in names:
        for folder in (root, root / "data"):
            files = sorted(folder.glob(f"{name}*.parquet"))
            if files:
                return ParquetFiles(files)
    found = ", ".join(sorted(path.name for path in root.glob("*.parquet"))[:5]) or "none"
    raise DataError(
        f"{root} has no {split} split: a Parquet file whose name begins with {split!r} "
        f"is needed (found: {found})."
    )


def parquet_class_names(root: Path) -> tuple[str, ...]:
    """Class names from the Hugging Face metadata of a train file; empty when there are none."""
    for path in sorted([*root.glob("train*.parquet"), *root.glob("data/train*.parquet")])[:1]:
        with _opened(path) as file:
            metadata = file.schema_arrow.metadata or {}
        try:
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
            label = next(features[name] for name in _LABEL_COLUMNS if name in features)
            return tuple(str(name) for name in label["names"])
        except (KeyError, StopIteration, TypeError, ValueError):
            return ()
    return ()


def _opened(path: Path) -> Any:
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; copy or download it again.")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(path, error) from error


def _corrupt(path: Path, error: Exception) -> DataError:
    reason = str(error).strip().split("\n")[0]
    return DataError(
        f"{path} is not a readable Parquet file ({reason}); copy or download it again."
    )


def _columns(schema: Any, path: Path) -> tuple[str, str]:
    image = next((name for name in _IMAGE_COLUMNS if name in schema.names), None)
    label = next((name for name in _LABEL_COLUMNS if name in schema.names), None)
    found = ", ".join(schema.names)
    if image is None or label is None:
        what = "image (or img)" if image is None else "label"
        raise DataError(f"{path} has no column {what}; it has {found}.")
    kind = schema.field(image).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise DataError(
            f"The column {image!r} of {path} is {kind}; it must be a struct with a field 'bytes' "
            "that holds an encoded image."
        )
    if not pa.types.is_integer(schema.field(label).type):
        raise DataError(
            f"The column {label!r} of {path} is {schema.field(label).type}; "
            "labels must be integers from 0."
        )
    return image, label


def _read_labels(file: Any, column: str, path: Path) -> Indices:
    try:
        labels = file.read(columns=[column]).column(column)
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(path, error) from error
    if labels.null_count:
        raise DataError(f"{path} has {labels.null_count} rows without a label; remove them.")
    return np.asarray(labels.to_numpy(), dtype=np.int64)
