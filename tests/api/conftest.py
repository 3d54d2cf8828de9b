"""One finished run of a live network, shared by the tests of what can be done with it."""

from __future__ import annotations

from pathlib import Path

import prunetune as pt
import pytest

from .live_networks import Frugal, digits, trained


@pytest.fixture(scope="session")
def task() -> pt.Task:
    """A trained network on digits, all of it objects."""
    train, test = digits()
    return pt.Task(trained(), train=train, test=test)


@pytest.fixture(scope="session")
def run(
    task: pt.Task, local_ray: None, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> pt.Run:
    """A finished search of 24 evaluations with a reward of the user's own."""
    folder = tmp_path_factory.mktemp("api") / "run"
    return pt.prune(
        task,
        {"flops": 0.5},
        reward=Frugal(),
        agent="random",
        evaluations=24,
        finetune=1,
        finalists=2,
        output=folder,
        progress=False,
    )
