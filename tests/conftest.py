"""Shared fixtures: the embedded digits task, one Ray, and real data where it is to be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from prunetune.models import PruningTask, TaskSpec, load_task

_REAL_DATA_VARIABLE = "PRUNETUNE_TEST_DATA"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of our own, so that no test reads or fills the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNETUNE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def digits_task(cache_folder: Path) -> PruningTask:
    """The embedded task: ``digits-net`` trained (in seconds) on scikit-learn's digits."""
    return load_task(TaskSpec(model="digits-net"), seed=0)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A local Ray of two CPUs, whatever the machine has, started once for all tests."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with ``cifar10/*.parquet`` and ``weights/*.safetensors``; skips without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get(_REAL_DATA_VARIABLE, beside))
    if not (folder / "weights").is_dir():
        pytest.skip(f"no real networks and CIFAR-10 in {folder}; set {_REAL_DATA_VARIABLE}")
    return folder
