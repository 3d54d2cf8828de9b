"""Shared fixtures: the digits task, one Ray, one finished run, and real data if there is some."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from prunetune.models import PruningTask, TaskSpec, load_task
from prunetune.search.run.summary import Summary

from .small_run import small_run_values

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
def finished(
    local_ray: None, digits_task: PruningTask, tmp_path_factory: pytest.TempPathFactory
) -> Summary:
    """A small search that ran to its end; its folder is for reading only."""
    from prunetune.search.engine.entry import run_search
    from prunetune.search.spec.reading import read_spec

    return run_search(read_spec(small_run_values(tmp_path_factory.mktemp("finished"))))


@pytest.fixture
def finished_copy(finished: Summary, tmp_path: Path) -> Path:
    """A copy of the finished run, which a test may do anything to; it counts as begun there."""
    from prunetune.search.run.folder import RunFolder
    from prunetune.search.run.trust import remember

    copy = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    remember(RunFolder.open(copy))
    return copy


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with ``cifar10/*.parquet`` and ``weights/*.safetensors``; skips without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get(_REAL_DATA_VARIABLE, beside))
    if not (folder / "weights").is_dir():
        pytest.skip(f"no real networks and CIFAR-10 in {folder}; set {_REAL_DATA_VARIABLE}")
    return folder
