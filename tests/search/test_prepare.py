"""Preparing a run on nodes that do not see its folder."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
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
