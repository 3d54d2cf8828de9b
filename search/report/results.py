"""What a run folder says, read for the report; works from the folder alone, finished or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import RunFolderError
from ..history import AskedCandidate, TrialHistory
from ..record import read_record
from ..run_folder import RunFolder

__all__ = ["FLOPS_NOTE", "Best", "Dense", "Results", "budget_text", "load_results"]

FLOPS_NOTE = "FLOPs = 2 x multiply-accumulates of convolutions and linear layers, at batch 1."
"""What every table says."""

_TITLES = {"flops": "FLOPs", "params": "parameters"}


@dataclass(frozen=True)
class Best:
    """The best candidate of one trial.

    Attributes:
        trial: Name of the trial.
        reward: What the trial maximised.
        budget: Limit by cost, as the user wrote it.
        agent: What proposed candidates.
        seed: Of the agent.
        feasible: Whether every budget is kept.
        widths: Units kept per channel group; empty when nothing was found.
        costs: Fractions of the dense network's cost.
        flops: 2 x multiply-accumulates at batch 1.
        params: Number of parameters.
        validation: Accuracy on the validation images, in [0, 1].
        test_before: Test accuracy after repair and before fine-tuning, in [0, 1].
        test_after: Test accuracy after fine-tuning.
        evaluations: Candidates that the trial asked for.
        artifact: Folder of the artifact relative to the run, or ``None``.
        error: Why the trial ended without a candidate, or ``None``.
    """

    trial: str
    reward: str
    budget: Mapping[str, float | str]
    agent: str
    seed: int
    feasible: bool
    widths: tuple[int, ...]
    costs: Mapping[str, float]
    flops: float
    params: float
    validation: float
    test_before: float
    test_after: float
    evaluations: int
    artifact: str | None
    error: str | None

    @property
    def test(self) -> float:
        """Test accuracy as delivered: after fine-tuning where there was some."""
        return self.test_after if math.isfinite(self.test_after) else self.test_before


@dataclass(frozen=True)
class Dense:
    """The dense network.

    Attributes:
        test: Test accuracy in [0, 1]; not-a-number where it is not known.
        validation: Accuracy on the validation images.
        flops: 2 x multiply-accumulates at batch 1.
        params: Number of parameters.
        groups: Name and size of every channel group, in the order of widths.
    """

    test: float
    validation: float
    flops: float
    params: float
    groups: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """Everything that a report shows.

    Attributes:
        name: Of the spec.
        path: The run folder, as text.
        status: ``running``, ``interrupted``, ``failed`` or ``finished``.
        dense: The dense network.
        bests: One per trial.
        histories: What each trial asked for, in order, by name of trial.
        accuracies: Validation accuracy of every recorded candidate, by widths.
        costs: Cost fractions of every recorded candidate, by widths.
        multipliers: Per trial, one mapping (budget's cost to multiplier) an iteration.
        summary: The whole of ``summary.json``.
        spec: The resolved spec.
        environment: The machine and its packages.
    """

    name: str
    path: str
    status: str
    dense: Dense
    bests: tuple[Best, ...]
    histories: Mapping[str, Sequence[AskedCandidate]]
    accuracies: Mapping[tuple[int, ...], float]
    costs: Mapping[tuple[int, ...], Mapping[str, float]]
    multipliers: Mapping[str, Sequence[Mapping[str, float]]]
    summary: Mapping[str, Any]
    spec: Mapping[str, Any]
    environment: Mapping[str, Any]


def budget_text(budget: Mapping[str, float | str]) -> str:
    """A set of budgets in words, for example ``FLOPs <= 50 %``."""
    parts = []
    for cost, limit in budget.items():
        shown = f"{100 * limit:g} %" if isinstance(limit, (int, float)) else str(limit)
        parts.append(f"{_TITLES.get(cost, cost)} ≤ {shown}")
    return ", ".join(parts)


def load_results(run: RunFolder) -> Results:
    """Read a run's folder.

    Raises:
        RunFolderError: If the run has no results yet, or a file of it is damaged.
    """
    summary = run.read_summary()
    if not summary.get("dense"):
        raise RunFolderError(
            f"The run {run.path} has no results yet; wait for its first evaluations or continue it "
            f"with `prunetune resume {run.path}`."
        )
    try:
        bests = tuple(_best(entry) for entry in summary.get("best", ()))
        dense = _dense(summary["dense"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"The file {run.summary_path} is damaged ({type(error).__name__}: {error}); restore it "
            "from a copy or run again."
        ) from error
    folders = sorted(run.histories.iterdir()) if run.histories.is_dir() else []
    accuracies: dict[tuple[int, ...], float] = {}
    costs: dict[tuple[int, ...], dict[str, float]] = {}
    for row in read_record(run.evaluations).to_pylist():
        widths = tuple(row["widths"])
        accuracies[widths] = _number(row.get("measures.accuracy"))
        costs[widths] = {
            name.removeprefix("costs."): value
            for name, value in row.items()
            if name.startswith("costs.") and value is not None
        }
    return Results(
        name=str(summary.get("name", run.path.name)),
        path=str(run.path),
        status=str(summary.get("status", "running")),
        dense=dense,
        bests=bests,
        histories={each.name: TrialHistory(each).load() for each in folders if each.is_dir()},
        accuracies=accuracies,
        costs=costs,
        multipliers={},
        summary=summary,
        spec=run.read_spec(),
        environment=run.read_environment(),
    )


def _best(entry: Mapping[str, Any]) -> Best:
    costs = {name: float(value) for name, value in (entry.get("costs") or {}).items()}
    return Best(
        trial=str(entry["trial"]),
        reward=str(entry["reward"]),
        budget=dict(entry["budget"]),
        agent=str(entry["agent"]),
        seed=int(entry["seed"]),
        feasible=bool(entry.get("feasible")),
        widths=tuple(int(width) for width in entry.get("widths") or ()),
        costs=costs,
        flops=_number(entry.get("flops")),
        params=_number(entry.get("params")),
        validation=_number(entry.get("validation")),
        test_before=_number(entry.get("test_before")),
        test_after=_number(entry.get("test_after")),
        evaluations=int(entry.get("evaluations") or 0),
        artifact=entry.get("artifact"),
        error=entry.get("error"),
    )


def _dense(entry: Mapping[str, Any]) -> Dense:
    return Dense(
        test=_number(entry.get("test")),
        validation=_number(entry.get("validation")),
        flops=_number(entry.get("flops")),
        params=_number(entry.get("params")),
        groups={str(name): int(size) for name, size in (entry.get("groups") or {}).items()},
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
