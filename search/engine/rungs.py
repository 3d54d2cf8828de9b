"""Stopping hopeless searches: asynchronous successive halving, written down as it happens.

At a rung, a number of evaluations, a search is compared with those of the same budgets that came
there before it (ASHA: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning",
algorithm 2, in the form that stops rather than pauses). What counts is the yardstick alone, never
the reward, in which searches differ. Decisions are files of the run, so that they stand whatever is
interrupted, and whoever reads the run can check them.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from ...envs.budgets import limit_text
from ...errors import RunFolderError
from ..run.folder import write_durably
from ..spec.model import BudgetSpec, StoppingSpec

__all__ = ["Rungs", "stopped_at"]


class Rungs:
    """The rungs of one run.

    Args:
        folder: ``RUN/rungs``; made by the first decision.
        stopping: How searches are compared.
        evaluations: Candidates that each search may ask for.
    """

    def __init__(self, folder: Path, stopping: StoppingSpec, evaluations: int) -> None:
        self.folder = folder
        self._reduction = stopping.reduction
        self.rungs: tuple[int, ...] = tuple(_rungs(stopping, evaluations))

    def due(self, before: int, now: int) -> int | None:
        """The last rung that a search reached by going from ``before`` evaluations to ``now``."""
        reached = [rung for rung in self.rungs if before < rung <= now]
        return reached[-1] if reached else None

    def goes_on(self, rung: int, budgets: BudgetSpec, trial: str, yardstick: float) -> bool:
        """Decide once and for all whether a search goes on beyond a rung.

        Args:
            rung: Evaluations.
            budgets: Its budgets; only searches of equal ones are compared.
            trial: Its name.
            yardstick: Its best candidate's, higher is better.

        Returns:
            Whether it is among the best ``1 / reduction`` of those that have come there so far,
            itself included, rounded up; always while fewer than ``reduction`` have.

        Raises:
            RunFolderError: If the decision cannot be written.
        """
        place = self.folder / _text(budgets) / f"{rung:08d}"
        path = place / f"{trial}.json"
        if path.is_file():
            return bool(_read(path)["goes_on"])
        others = [float(_read(each)["yardstick"]) for each in place.glob("*.json")]
        count = len(others) + 1
        better = sum(other > yardstick for other in others)
        decision = count < self._reduction or better < math.ceil(count / self._reduction)
        note = {"yardstick": yardstick, "better": better, "others": len(others)}
        try:
            place.mkdir(parents=True, exist_ok=True)
            write_durably(path, json.dumps({**note, "goes_on": decision}).encode())
        except OSError as error:
            raise RunFolderError(
                f"The file {path} cannot be written ({error.strerror or error}); free space or "
                "make the run folder writable, and resume the run."
            ) from error
        return decision


def stopped_at(folder: Path, trial: str) -> int | None:
    """The rung at which a search was stopped, if it was.

    Args:
        folder: ``RUN/rungs``.
        trial: Its name.
    """
    for path in sorted(folder.glob(f"*/*/{trial}.json")):
        if not _read(path)["goes_on"]:
            return int(path.parent.name)
    return None


def _rungs(stopping: StoppingSpec, evaluations: int) -> list[int]:
    rungs = []
    rung = max(1, round(stopping.first * evaluations))
    while rung < evaluations:
        rungs.append(rung)
        rung *= stopping.reduction
    return rungs


def _read(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
        return value
    except (OSError, ValueError) as error:
        raise RunFolderError(f"The file {path} cannot be read: {error}") from error


def _text(budgets: BudgetSpec) -> str:
    text = ",".join(f"{cost}{limit_text(limit)}" for cost, limit in sorted(budgets.items()))
    return re.sub(r"[^\w.%,-]+", "-", text)
