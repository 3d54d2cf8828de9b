"""How the searches of a run get on: a note now and then, and a table that is kept up to date."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from statistics import median
from types import MappingProxyType
from typing import Any, ClassVar

from ray import tune
from ray.tune.experiment import Trial

from ...models.progress import SILENT, Progress
from ..spec.trials import TrialSpec
from .signals import remind
from .trial import ACCURACY

__all__ = ["COLUMNS", "ReportProgress", "table_rows"]

_QUIET_SECONDS = 10.0

COLUMNS = ("reward", "budgets", "agent", "searches", "candidates", "best reward", "accuracy, %")
"""Of the table; the last two are medians of the seeds that have a feasible candidate."""


def table_rows(
    trials: Mapping[str, TrialSpec], results: Mapping[str, Mapping[str, Any]], evaluations: int
) -> list[tuple[str, ...]]:
    """The table: one row for the seeds of a reward, set of budgets and agent.

    Args:
        trials: All searches, by name.
        results: The last that is known of each.
        evaluations: Candidates that each may ask for.

    Returns:
        Cells in the order of `COLUMNS`: first the rows that are under way, then those that wait,
        then those that are done.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, trial in trials.items():
        groups.setdefault(trial.without_seed, []).append(name)
    rows = []
    for kind, names in groups.items():
        known = [results[name] for name in names if name in results]
        done = sum(bool(result.get("done")) for result in known)
        asked = sum(int(result.get("evaluations", 0)) for result in known)
        state = 2 if done == len(names) else 0 if known else 1
        cells = (
            *kind,
            f"{done} of {len(names)}",
            f"{asked} of {evaluations * len(names)}",
            _middle(known, "best_reward", "{:.4f}", 1.0),
            _middle(known, f"best_{ACCURACY}", "{:.2f}", 100.0),
        )
        rows.append((state, cells))
    return [cells for _, cells in sorted(rows, key=lambda row: row[0])]


def _middle(known: list[Mapping[str, Any]], name: str, written: str, scale: float) -> str:
    values = [float(result[name]) for result in known if name in result]
    values = [value for value in values if math.isfinite(value)]
    return written.format(scale * median(values)) if values else ""


class ReportProgress(tune.Callback):
    """Progress of all trials. Tune pickles its callbacks, so what cannot be is kept apart."""

    progress: ClassVar[Progress] = SILENT
    trials: ClassVar[Mapping[str, TrialSpec]] = {}
    evaluations: ClassVar[int] = 0
    results: ClassVar[dict[str, dict[str, Any]]] = {}
    last_note: ClassVar[float] = 0.0

    @classmethod
    def begin(
        cls,
        progress: Progress,
        trials: Mapping[str, TrialSpec],
        evaluations: int,
        results: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> None:
        """Report to ``progress`` from now on; ``results`` are of searches that have ended."""
        cls.progress, cls.trials, cls.evaluations = progress, trials, evaluations
        cls.results = {name: dict(result) for name, result in results.items()}
        cls.last_note = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Tell Tune again where the run was asked to end; see `remind`."""
        remind()

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Advance, and now and then say how the trial gets on."""
        cls = type(self)
        name = str(trial.config["trial"]["name"])
        done = int(result.get("evaluations", 0))
        before = int(cls.results.get(name, {}).get("evaluations", 0))
        cls.progress.advance(max(0, done - before))
        # A trial that is restored reports again what it had reported.
        cls.results[name] = {**result, "evaluations": max(done, before)}
        if len(cls.trials) > 1:
            cls.progress.table(COLUMNS, table_rows(cls.trials, cls.results, cls.evaluations))
        now = time.monotonic()
        if result.get("done") or now - cls.last_note > _QUIET_SECONDS:
            cls.last_note = now
            cls.progress.note(self._line(name, result))
        if result.get("done"):
            # A trial may end before it has asked for everything it might.
            cls.progress.advance(max(0, cls.evaluations - done))

    def _line(self, name: str, result: Mapping[str, Any]) -> str:
        cls = type(self)
        title = cls.trials[name].title if name in cls.trials else name
        if result.get("failure"):
            return f"{title}: ended early: {result['failure']}"
        budgets = cls.trials[name].budgets if name in cls.trials else {}
        parts = [f"{result.get('evaluations', 0)} of {cls.evaluations} evaluations"]
        if "best_reward" in result:
            parts.append(f"best feasible reward {result['best_reward']:.4f}")
            accuracy = result.get(f"best_{ACCURACY}", math.nan)
            if math.isfinite(accuracy):
                parts.append(f"accuracy {100 * accuracy:.2f} %")
            parts += [f"{cost} {result[f'best_{cost}']:.3f}" for cost in budgets]
        else:
            parts.append("nothing feasible yet")
        for cost in budgets:
            if (key := f"multipliers/{cost}") in result:
                parts.append(f"multiplier {result[key]:.3f}")
        return f"{title}: {', '.join(parts)}"
