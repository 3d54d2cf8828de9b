"""Run folders as finished comparisons leave them, made without running anything; and a trap."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from prunetune.rewards import MEASURES, Evaluation
from prunetune.search.run.folder import RunFolder
from prunetune.search.run.history import Asked, TrialHistory
from prunetune.search.run.record import EvaluationRecord, RecordKey
from prunetune.search.run.summary import Best, Counts, Dense, Summary, write_summary

_GROUPS = {"stem": 4, "block": 8}


class Touches:
    """Its pickle makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mknod, (str(self.path),)


def finished_trial(
    reward: str, limit: float, seed: int, after: float, widths: tuple[int, int] = (2, 3)
) -> dict[str, object]:
    """What a summary says of one search; ``after`` is the test accuracy after fine-tuning."""
    return {
        "trial": f"{reward}-{limit}-{seed}",
        "reward": reward,
        "budget": {"flops": limit},
        "agent": "random",
        "seed": seed,
        "feasible": True,
        "candidate": list(widths),
        "costs": {"flops": limit - 0.01, "params": 0.4},
        "flops": int(1e6 * (limit - 0.01)),
        "params": 40_000,
        "validation": 0.9,
        "test_before": after - 0.05,
        "test_after": after,
        "evaluations": 32,
        "feasible_candidates": 20,
        "artifact": f"best/{reward}-{limit}-{seed}",
    }


def write_run(
    path: Path,
    trials: list[dict[str, object]],
    measures: Callable[[tuple[int, int]], dict[str, float]] | None = None,
) -> RunFolder:
    """A run of these searches, with 32 recorded candidates and their ``measures``, by widths."""
    run = RunFolder.create(path, {"name": "a <b> run", "task": {"model": "digits-net"}})
    record = EvaluationRecord(run.evaluations, RecordKey("t", "e", "fp32", "quick"))
    rng = np.random.default_rng(0)
    widths = [(int(a), int(b)) for a in range(1, 5) for b in range(1, 9)]
    record.append(
        [
            Evaluation(
                each,
                {"accuracy": float(0.5 + 0.4 * rng.random())}
                if measures is None
                else measures(each),
                {"flops": each[0] * each[1] / 32, "params": each[1] / 8},
            )
            for each in widths
        ]
    )
    for trial in trials:
        history = TrialHistory(run.histories / str(trial["trial"]))
        for iteration in range(2):
            asked = [
                Asked(
                    each,
                    float(rng.random()),
                    {"flops": each[0] * each[1] / 32},
                    each[0] * each[1] <= 16,
                    16 * iteration + index,
                )
                for index, each in enumerate(widths[16 * iteration : 16 * (iteration + 1)])
            ]
            history.write(iteration, asked)
    summary = Summary(
        folder=run.path,
        name="a <b> run",
        status="finished",
        task="digits-net on digits",
        criterion="l1",
        repair="quick",
        precision="fp32",
        best=tuple(Best.model_validate(trial) for trial in trials),
        evaluations=Counts(asked=37, unique=32, cached=5, failed=0, per_second=9.0),
        wall_seconds=12.5,
        dense=Dense(
            test=0.97,
            validation=0.96,
            flops=1_000_000,
            params=100_000,
            groups=_GROUPS,
            measures=dict.fromkeys(MEASURES, 0.5),
        ),
    )
    write_summary(run, summary)
    return run
