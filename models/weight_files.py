"""Files of weights, known by what they hold and not by their endings; no code of theirs runs."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from ..errors import WeightsError

__all__ = ["read_file"]

# Where checkpoints keep the weights.
_ENTRIES = ("state_dict", "model_state_dict", "model", "net", "network")
# Enough for the header of a tar archive, which says what it is at byte 257.
_HEAD_BYTES = 512
_LENGTH_BYTES = 8
# What stands in place of weights, by how it begins.
_NO_WEIGHTS = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer and not the weights; fetch them with `git lfs pull`",
    ),
    (b"<", "is a web page and not the weights; download the file itself, by its raw link"),
    (b"{", "is JSON and not the weights; give the file that holds the tensors"),
    (b"\x1f\x8b", "is a gzip archive; unpack it and give the file inside"),
    (b"BZh", "is a bzip2 archive; unpack it and give the file inside"),
    (b"\xfd7zXZ", "is an xz archive; unpack it and give the file inside"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it and give the file inside"),
    (b"\x89HDF", "is an HDF5 file; convert it to safetensors first"),
)
_ZIP, _PICKLE = b"PK", b"\x80"


def read_file(path: Path) -> Mapping[str, object]:
    """What a file of weights holds: safetensors, or what ``torch.save`` writes, by its content.

    Args:
        path: The file, of any ending. Of a checkpoint that keeps its weights under ``state_dict``
            (or ``model``, ...), these are returned.

    Raises:
        WeightsError: If there is no such file, or it is something else; the message says what.
    """
    if not path.is_file():
        raise WeightsError(f"The weights file {path} does not exist; set task.weights to one.")
    try:
        head, size = _head(path), path.stat().st_size
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not size:
        raise WeightsError(f"{path} is empty; download or write it again.")
    if _is_safetensors(head, size):
        return _read_safetensors(path)
    if head.startswith((_ZIP, _PICKLE)):
        return _read_pickled(path)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for beginning, what in _NO_WEIGHTS:
        if start.startswith(beginning):
            raise WeightsError(f"{path} {what}.")
    if head[257:262] == b"ustar":
        raise WeightsError(f"{path} is a tar archive; unpack it and give the file inside.")
    kind = "safetensors" if path.suffix == ".safetensors" else "PyTorch"
    raise WeightsError(
        f"{path} is not a readable {kind} file: it begins neither as safetensors nor as what "
        "torch.save writes; save the state_dict of the network again."
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether there is a JSON header of a length that the file has room for."""
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    return head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and 0 < length <= size - _LENGTH_BYTES


def _read_safetensors(path: Path) -> Mapping[str, object]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}.") from error


def _read_pickled(path: Path) -> Mapping[str, object]:
    try:
        with warnings.catch_warnings():
            # Of protocols that it may not know all of: what it cannot read, it refuses.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, and its code is not run; save only the state_dict: "
            "torch.save(network.state_dict(), path)."
        ) from error
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"{path} is not a readable PyTorch file: {reason}.") from error
    if isinstance(content, Mapping):
        for entry in _ENTRIES:
            inner = content.get(entry)
            if isinstance(inner, Mapping):
                return inner
        return content
    raise WeightsError(f"{path} holds a {type(content).__name__}; save the state_dict instead.")
