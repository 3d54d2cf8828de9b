"""The folder where dense networks that we trained, and downloads, are kept between runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from .._home import private_folder, writable

__all__ = ["CACHE_VARIABLE", "cache_folder", "cache_key"]

CACHE_VARIABLE = "PRUNETUNE_CACHE"


def cache_folder() -> Path:
    """The cache folder: ``$PRUNETUNE_CACHE``, or ``~/.cache/prunetune``. It may not exist yet.

    Where the home folder has none and it cannot be made, it is in a temporary folder of this user.
    A cache that is there and cannot be written is read all the same.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    usual = Path.home() / ".cache" / "prunetune"
    return usual if usual.is_dir() or writable(usual) else private_folder() / "cache"


def cache_key(facts: Mapping[str, object]) -> str:
    """A name for a cached result: the SHA-256 of everything that decides it.

    Args:
        facts: JSON-serialisable values; equal facts give equal names in any order.

    Returns:
        32 hexadecimal digits.
    """
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
