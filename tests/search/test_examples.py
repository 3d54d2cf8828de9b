"""The examples that are programs or searches, run as their users would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from prunetune._references import resolve
from prunetune.search.engine.entry import run_search
from prunetune.search.run.history import TrialHistory
from prunetune.search.spec.reading import load_spec
from torch import nn

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.ray


@pytest.mark.slow
def test_lagrangian_ppo_learns_the_shop_by_heart(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, _EXAMPLES / "lagrangian_ppo.py"],
        env={**os.environ, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(re.findall(r"^(return|taken|multiplier) ([\d.]+)", done.stdout, re.M))
    # The mean of 768 episodes, whose standard error is one per cent.
    assert float(found["return"]) == pytest.approx(5 / 3 + 1 / 6, rel=0.06)
    assert float(found["taken"]) <= 2.0 * 1.03
    # An offer of 0.5 is what a multiplier lets pass or not.
    assert 0 < float(found["multiplier"]) < 1
    logs = Path(re.findall(r"^tensorboard --logdir (.+)$", done.stdout, re.M)[0])
    assert list(logs.glob("events.out.tfevents.*"))


def test_padded_flops_count_whole_blocks() -> None:
    padded_flops = resolve(f"{_EXAMPLES / 'padded_flops.py'}:padded_flops", "cost")
    network = nn.Sequential(nn.Conv2d(3, 9, 3), nn.ReLU(), nn.Conv2d(9, 8, 1))
    counted = padded_flops(network, torch.zeros(1, 3, 6, 6))
    assert counted == 2 * (8 * 16 * 9 + 16 * 8) * 4 * 4


@pytest.mark.slow
def test_a_budget_of_ones_own_is_kept(local_ray: None, cache_folder: Path, tmp_path: Path) -> None:
    # Fewer of everything than the example asks for.
    fewer = ["evaluations=200", "finalists=1", "finetune.epochs=0", "measures=[accuracy]"]
    spec = load_spec(_EXAMPLES / "odd_widths.yaml", [*fewer, f"output={tmp_path / 'run'}"])
    summary = run_search(spec)
    (best,) = summary.best
    history = TrialHistory(summary.folder / "histories" / best.trial).load()
    (name,) = (cost for cost in best.budget if cost.endswith(":odd_widths"))
    odd = np.array([asked.costs[name] for asked in history])
    np.testing.assert_array_equal(odd, [sum(w % 2 for w in asked.candidate) for asked in history])
    assert best.feasible and best.measured[name] <= 1
    # By chance 5 of 16 candidates keep it.
    last = len(history) // 5
    assert np.mean(odd[-last:] <= 1) >= 0.9
    assert odd[-last:].mean() < odd[:last].mean()
