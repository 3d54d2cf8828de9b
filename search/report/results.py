"""What the report knows of a run is read from its folder alone, finished or not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ..._live import is_live, live_name
from ...errors import RunFolderError
from ...rewards import Evaluation
from ..run.checkpoints import experiments
from ..run.files import read_file
from ..run.folder import RunFolder
from ..run.history import Asked, TrialHistory
from ..run.record import read_record
from ..run.summary import Best, Dense, Summary, read_summary

__all__ = [
    "ACCURACY",
    "FLOPS_NOTE",
    "Results",
    "budget_text",
    "cost_name",
    "delivered_accuracy",
    "load_results",
    "number",
]

FLOPS_NOTE = "FLOPs = 2 x multiply-accumulates of convolutions and linear layers, at batch 1."
"""What every table says."""

ACCURACY = "accuracy"
"""The measure that pictures show beside the reward, where it is recorded."""

_ITERATION, _MULTIPLIER = "training_iteration", "multipliers/"
_POLICY = {"return": "episode_return", "entropy": "entropy/default_policy"}
_TITLES = {"flops": "FLOPs", "params": "parameters"}


@dataclass(frozen=True)
class Results:
    """Everything that a report shows.

    Attributes:
        path: The run folder.
        summary: What ``summary.json`` says.
        histories: What each trial asked for, in order, by name of trial.
        evaluations: Every recorded candidate that could be evaluated, by widths.
        multipliers: Per trial, one mapping (budget's cost to multiplier) an iteration.
        policies: Per trial, the policy's mean ``return`` and ``entropy``, one mapping an iteration.
        spec: The resolved spec.
        environment: The machine and its packages.
    """

    path: Path
    summary: Summary
    histories: Mapping[str, Sequence[Asked]]
    evaluations: Mapping[tuple[int, ...], Evaluation]
    multipliers: Mapping[str, Sequence[Mapping[str, float]]]
    policies: Mapping[str, Sequence[Mapping[str, float]]]
    spec: Mapping[str, Any]
    environment: Mapping[str, Any]

    def validation_accuracy(self, widths: tuple[int, ...]) -> float:
        """Return a candidate's recorded accuracy, in [0, 1]; not-a-number where there is none."""
        evaluation = self.evaluations.get(widths)
        return math.nan if evaluation is None else evaluation.measures.get(ACCURACY, math.nan)

    @property
    def bests(self) -> tuple[Best, ...]:
        """Return the best candidate of each trial."""
        return self.summary.best

    @property
    def dense(self) -> Dense:
        """Return what is known of the dense network."""
        return self.summary.dense


def budget_text(budget: Mapping[str, float | str]) -> str:
    """Write a set of budgets in words, for example ``FLOPs <= 50 %``."""
    parts = []
    for cost, limit in budget.items():
        fraction = isinstance(limit, (int, float)) and limit <= 1
        shown = f"{100 * float(limit):g} %" if fraction else str(limit)
        parts.append(f"{_TITLES.get(cost, cost_name(cost))} ≤ {shown}")
    return ", ".join(parts)


def delivered_accuracy(best: Best) -> float:
    """Return the accuracy as delivered, in [0, 1]: after fine-tuning where there was some."""
    return number(best.test_before if best.test_after is None else best.test_after)


def number(value: object) -> float:
    """Return the number, or not-a-number for what is missing or larger than any."""
    try:
        return float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:
        return math.nan


def load_results(run: RunFolder) -> Results:
    """Read a run's folder.

    Raises:
        RunFolderError: If the run has no results yet, or a file of it is damaged.
    """
    summary = read_summary(run)
    if summary is None:
        raise RunFolderError(
            f"The run {run.path} has no results yet; wait for its first evaluations or continue it "
            f"with `prunetune resume {run.path}`."
        )
    folders = sorted(run.histories.iterdir()) if run.histories.is_dir() else []
    rows = (Evaluation.from_row(row) for row in read_record(run.evaluations).to_pylist())
    evaluations = {each.candidate: each for each in rows if each.error is None}
    return Results(
        path=run.path,
        summary=summary,
        histories={each.name: TrialHistory(each).load() for each in folders if each.is_dir()},
        evaluations=evaluations,
        multipliers=_logged(run, _multipliers),
        policies=_logged(run, _policy),
        spec=run.read_spec(),
        environment=run.read_environment(),
    )


def cost_name(cost: str) -> str:
    """A cost's name for people: of the user's own, file or module and function without the path."""
    if is_live(cost):
        return live_name(cost)
    location, colon, function = cost.rpartition(":")
    return f"{PurePath(location).stem}:{function}" if colon else cost


def _logged(
    run: RunFolder, read: Callable[[Mapping[str, Any]], dict[str, float]]
) -> dict[str, list[dict[str, float]]]:
    """Read Tune's own logs. A line is one iteration, and the last of equal ones counts."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    logs = (path for each in experiments(run.tune) for path in sorted(each.rglob("result.json")))
    for path in logs:
        try:
            lines = read_file(path).splitlines()
        except RunFolderError:
            # Pictures of multipliers are not worth a report.
            continue
        for line in lines:
            try:
                row = json.loads(line)
                trial, iteration = str(row["config"]["trial"]["name"]), int(row[_ITERATION])
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                # The last line may be half-written where a machine died.
                continue
            values = read(row)
            if values:
                found.setdefault(trial, {})[iteration] = values
    return {trial: [rows[key] for key in sorted(rows)] for trial, rows in found.items()}


def _multipliers(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        key.removeprefix(_MULTIPLIER): number(value)
        for key, value in row.items()
        if key.startswith(_MULTIPLIER) and isinstance(value, (int, float))
    }


def _policy(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: number(row[key])
        for name, key in _POLICY.items()
        if isinstance(row.get(key), (int, float))
    }
