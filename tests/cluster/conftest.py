"""One real Ray for all tests of this floor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from .ray_nodes import Head, started_head


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A local Ray of two CPUs, whatever the machine has."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def ray_head(cache_folder: Path) -> Iterator[Head]:
    """A head node of two CPUs as `ray start` makes it, with token and dashboard."""
    with started_head(cpus=2) as head:
        yield head
