"""The folder where dense networks that we trained, and downloads, are kept between runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "cache_folder", "cache_key"]

CACHE_VARIABLE = "PRUNETUNE_CACHE"


def cache_folder() -> Path:
    """The cache folder: ``$PRUNETUNE_CACHE``, or ``~/.cache/prunetune``. It may not exist yet."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "prunetune"


def cache_key(facts: Mapping[str, object]) -> str:
    """A name for a cached result: the SHA-256 of everything that decides it.

    Args:
        facts: JSON-serialisable values; equal facts give equal names in any order.

    Returns:
        32 hexadecimal digits.
    """
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
