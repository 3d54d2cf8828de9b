"""Preparing a run on nodes that do not see its folder."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
from prunetune.errors import MeasureError
from prunetune.search.engine import preparing as module
from prunetune.search.engine.preparing import prepare
from prunetune.search.run.folder import RunFolder
from prunetune.search.spec.reading import read_spec


def test_weights_that_were_trained_for_a_run_reach_other_nodes(
    tmp_path: Path, digits_task: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_spec({"task": {"model": "digits-net"}, "budgets": {"flops": 0.5}})
    folder = RunFolder.create(tmp_path / "run", spec.to_dict())
    prepared = prepare(spec).keep(folder)
    resumed = prepare(spec, folder=folder).keep(folder)
    sent = [pickle.dumps(each.factory) for each in (prepared, resumed)]
    shutil.rmtree(folder.path)
    for factory in sent:
        monkeypatch.setenv("PRUNETUNE_CACHE", str(tmp_path / "another node"))
        monkeypatch.setattr(module, "_PREPARED", {})
        evaluator = pickle.loads(factory)()
        assert evaluator.key == prepared.evaluator.key
        assert evaluator.dense.measures == prepared.evaluator.dense.measures


_OWN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 12, 3)
        self.relu, self.head = nn.ReLU(), nn.Linear(12, num_classes)
        self.auxiliary = nn.Linear(12, num_classes)

    def forward(self, x):
        x = self.relu(self.b(self.relu(self.a(x))))
        return self.head(x.reshape(x.shape[0], self.b.out_channels, -1).mean(2))
"""


def test_workers_are_told_what_was_given_up_and_readers_too(
    tmp_path: Path, digits_task: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(_OWN)
    spec = read_spec(
        {
            "task": {"model": f"{tmp_path}/own.py:Net", "training": {"epochs": 1}},
            "budgets": {"flops": 0.8},
            "precision": "fp32",
        }
    )
    prepared = prepare(spec)
    measure, fused = prepared.notes
    assert "'feature-distance' is left out" in measure and "do not fuse" in fused
    monkeypatch.setattr(module, "_PREPARED", {})
    worker = pickle.loads(
        pickle.dumps(prepared.keep(RunFolder.create(tmp_path / "run", {})).factory)
    )
    evaluator = worker()
    assert evaluator.shortcuts == prepared.evaluator.shortcuts
    assert evaluator.dense.measures == prepared.evaluator.dense.measures
    asked = read_spec({**spec.to_dict(), "reward": "feature-distance"})
    with pytest.raises(MeasureError, match="another reward than 'feature-distance'"):
        prepare(asked)
