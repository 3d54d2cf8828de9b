"""The files of an artifact: their names, how they are read within bounds, and their digests."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from ...errors import NetworkError

__all__ = [
    "DESCRIPTION",
    "WEIGHTS",
    "content_digest",
    "file_digest",
    "file_inside",
    "read_content",
    "written",
]

DESCRIPTION, WEIGHTS = "pruning.json", "model.safetensors"

# Our choice: some hundred times what the largest networks need.
_LARGEST_BYTES = 64 * 2**20
_DEEPEST = 32
_CHUNK = 2**20
# A list of plain numbers, one a line as JSON indents them; strings hold no line breaks.
_NUMBERS = re.compile(r"\[\n\s*([^\[\]{}\"]*?)\n\s*\]")


def file_inside(folder: Path, name: str) -> Path:
    """A file of an artifact.

    Args:
        folder: The artifact.
        name: One of our names.

    Raises:
        NetworkError: If there is no such file, or it is a link that leads out of the folder.
    """
    path = folder / name
    if not path.is_file():
        if name == DESCRIPTION:
            raise NetworkError(
                f"{folder} is not an artifact: it has no {name}; "
                "give a folder such as RUN/best/TRIAL."
            )
        raise NetworkError(f"{path} does not exist; copy the whole artifact, with both its files.")
    if folder.resolve() not in path.resolve().parents:
        raise NetworkError(
            f"{path} is a link that leads out of its folder; put the file itself there."
        )
    return path


def read_content(folder: Path) -> dict[str, Any]:
    """What ``pruning.json`` holds: plain values of a bounded size and depth.

    Raises:
        NetworkError: If there is no such file, or it is not what we write.
    """
    path = file_inside(folder, DESCRIPTION)
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        raise NetworkError(
            f"{path} has {size:,} bytes, and an artifact's has at most {_LARGEST_BYTES:,}; "
            "it was not written by prunetune."
        )
    try:
        content = json.loads(path.read_bytes().decode(), parse_constant=_refuse)
        if any(depth > _DEEPEST for depth in _depths(content)):
            raise ValueError("it is nested too deeply")
        # Half of a surrogate pair is no text, and numbers may have overflowed.
        content_digest(content)
    except RecursionError:
        raise NetworkError(
            f"{path} is not valid JSON (it is nested too deeply); write the artifact again."
        ) from None
    except ValueError as error:
        reason = str(error).strip().split("\n")[0]
        raise NetworkError(
            f"{path} is not valid JSON ({reason}); write the artifact again."
        ) from None
    if not isinstance(content, dict):
        raise NetworkError(f"{path} holds no description and no format; write the artifact again.")
    return content


def written(content: dict[str, Any]) -> str:
    """The text of ``pruning.json``, with every list of numbers on one line."""
    text = json.dumps(content, indent=2, allow_nan=False)
    return _NUMBERS.sub(lambda found: f"[{' '.join(found.group(1).split())}]", text) + "\n"


def content_digest(content: Any) -> str:
    """SHA-256 of plain values, whatever the order of keys and the spaces of a file.

    Raises:
        ValueError: If a number is not finite or a text is no Unicode.
    """
    text = json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, which is read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _depths(content: Any) -> Iterator[int]:
    """How deep each list and mapping lies."""
    waiting = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        yield depth
        inner = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list):
            waiting.extend((each, depth + 1) for each in inner if isinstance(each, dict | list))
