"""One head node for all tests of this floor that need more than a local Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .ray_nodes import Head, started_head


@pytest.fixture(scope="session")
def ray_head(cache_folder: Path) -> Iterator[Head]:
    """A head node of two CPUs as `ray start` makes it, with token and dashboard."""
    with started_head(cpus=2) as head:
        yield head
