"""One small real search: what it is told, so that tests can run it, edit it and continue it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["REWARD", "TRIAL", "small_run_values"]

# A file of the user's own, so that everything that continues a run has to find it again.
REWARD = """
from prunetune.rewards.reward import Reward

class Mine(Reward):
    name, measures = "mine", ("accuracy",)

    def __call__(self, evaluation, dense):
        return evaluation.measures["accuracy"]
"""
TRIAL = "rewards-Mine_flops0.5_random_seed0"


def small_run_values(folder: Path, **values: Any) -> dict[str, Any]:
    """The spec of sixteen random candidates in four iterations, in ``folder / "run"``.

    Args:
        folder: Receives the file with the reward, and later the run.
        **values: What differs.
    """
    (folder / "rewards.py").write_text(REWARD)
    return {
        "task": {"model": "digits-net"},
        "budgets": {"flops": 0.5},
        "reward": f"{folder / 'rewards.py'}:Mine",
        "agent": {"name": "random", "parameters": {"candidates": 4}},
        "evaluations": 16,
        "finetune": {"epochs": 0},
        "finalists": 2,
        "measures": ["accuracy"],
        "output": str(folder / "run"),
        **values,
    }
